"""Stage report: every evaluated cell -> results/ and report/index.html."""

import shutil
from pathlib import Path

from palinode import io
from palinode.report.build import build
from palinode.report.collect import REFERENCE_ROWS, attacked
from palinode.report.environment import describe
from palinode.settings import read
from palinode.stage import CELLS, device, main


def run() -> None:
    device()  # sets the threads that environment.json names
    settings = vars(read("report"))
    prune(settings)
    print(build(settings))
    io.write_json(Path("results/environment.json"), describe())


def prune(settings: dict) -> None:
    """Remove the cells, and attacks on cells, that no list names any more: the folder of all cells is this stage's
    input, and what lies in it must depend on the parameters alone. DVC's cache keeps their content."""
    wanted = {(task, row, "0") for task, family in settings["families"].items() for row in REFERENCE_ROWS[family]}
    for task, rows in settings["tasks"].items():
        wanted |= {(task, row, str(seed)) for row in rows for seed in settings["seeds"]}
    for cell in CELLS.glob("*/*/*"):
        if tuple(cell.parts[-3:]) not in wanted:
            shutil.rmtree(cell)
    attacks = attacked(settings)
    for folder in CELLS.glob("*/*/*/robustness/*"):
        if folder.name not in attacks[folder.parts[-5:-3]]:
            shutil.rmtree(folder)
    for folder in [*CELLS.glob("*/*/*/robustness"), *CELLS.glob("*/*"), *CELLS.glob("*")]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    main(run)
