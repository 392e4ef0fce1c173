"""Which weights matter, for the methods that ask: importance.py KIND TASK SUBJECT."""

from palinode import tasks
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, kind: str, *cell: str) -> None:
    tasks.load(kind, "importance").run(work, *cell)


if __name__ == "__main__":
    main(run)
