"""Train the evaluation classifier of a base: judge.py BASE."""

from palinode import bases
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, base: str) -> None:
    bases.load(work, "judge").run(work)


if __name__ == "__main__":
    main(run)
