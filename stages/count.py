"""Count forget images among many samples of a cell, or of a reference row: count.py KIND TASK SUBJECT ROW SEED."""

from palinode import tasks
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, kind: str, *cell: str) -> None:
    tasks.load(kind, "count").run(work, *cell)


if __name__ == "__main__":
    main(run)
