"""Check every parameter and write what each stage will do: plan.py (see palinode.plan)."""

import shutil
from pathlib import Path

from palinode import params, plan
from palinode.io import atomic
from palinode.settings import FOLDER
from palinode.stage import CELLS, main


def run() -> None:
    chosen = params.load()
    with atomic(FOLDER) as folder:
        plan.write_all(chosen, Path("."), folder)
    # The report depends on the folder of all cells, so one that no list names any more must not stay (DVC's cache keeps
    # its content).
    for cell in CELLS.glob("*/*/*"):
        if tuple(cell.parts[-3:]) not in set(plan.cells(chosen)):
            shutil.rmtree(cell)


if __name__ == "__main__":
    main(run)
