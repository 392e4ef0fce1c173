"""Fit the second judge of a base: second_judge.py BASE."""

from palinode import bases
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, base: str) -> None:
    bases.load(work, "second_judge").run(work)


if __name__ == "__main__":
    main(run)
