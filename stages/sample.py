"""Draw what a cell, or a reference row, is measured by: sample.py KIND TASK SUBJECT ROW SEED."""

from palinode import tasks
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, kind: str, *cell: str) -> None:
    tasks.load(kind, "sample").run(work, *cell)


if __name__ == "__main__":
    main(run)
