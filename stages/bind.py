"""Give each task the models that it uses, in one folder: bind.py."""

from palinode.core.work import Work
from palinode.pipeline.stage import main
from palinode.tasks.binding import bind


def run(work: Work) -> None:
    bind(work)


if __name__ == "__main__":
    main(run)
