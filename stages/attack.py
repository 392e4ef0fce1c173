"""Attack a cell, or a reference row: attack.py KIND TASK SUBJECT ROW SEED ATTACK."""

from palinode import tasks
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, kind: str, *cell: str) -> None:
    tasks.load(kind, "attack").run(work, *cell)


if __name__ == "__main__":
    main(run)
