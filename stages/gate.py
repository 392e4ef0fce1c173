"""Refuse a base model that does not show what it must: gate.py BASE."""

from palinode import bases
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, base: str) -> None:
    bases.load(work, "gate").run(work)


if __name__ == "__main__":
    main(run)
