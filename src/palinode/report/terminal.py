"""Headline tables in the terminal, the papers' numbers beside.

python -m palinode.report.terminal [images|concept|prompts] [FOLDER ...], the folders being those of cells to leave out.
"""

import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from palinode.core.work import PLANS, read_plan
from palinode.metrics import registry
from palinode.params import KINDS
from palinode.params.report_settings import ReportSettings, ReportTask
from palinode.report import collect, reference_tables, tables

COLUMNS = 4


def show(kinds: Sequence[str], console: Console, unfinished: frozenset[Path] = frozenset()) -> None:
    """The tables of these kinds of tasks, of every kind when none is named.

    unfinished: folders of cells whose rows are left out; all other cells have to be evaluated.
    """
    settings = read_plan(PLANS / "report.json", ReportSettings)
    folder = Path("reference")
    papers = {table["id"]: table for table in reference_tables.read_tables(folder)}
    mapping = reference_tables.read_mapping(folder)
    for task in settings.tasks:
        if not kinds or task.kind in kinds:
            rows = {row: settled for row, settled in task.rows.items() if not unfinished & _cells(task, row, settings)}
            finished = task.model_copy(update={"rows": rows})
            read = collect.read_task(finished, settings.seeds, defaultdict(list), Path())
            so_far = f"{len(rows)} of {len(task.rows)} rows so far, " if len(rows) < len(task.rows) else ""
            console.print(_draw(read, tables.main_table(read, papers, mapping, _choose_columns(read)), so_far))


def _cells(task: ReportTask, row: str, settings: ReportSettings) -> set[Path]:
    places = itertools.product(task.subjects, settings.seeds)
    return {collect.CELLS / task.name / str(subject) / row / str(seed) for subject, seed in places}


def _choose_columns(task: collect.Task) -> tuple[registry.Entry, ...]:
    known = set(task.metrics)
    return tuple(entry for entry in registry.columns(task.kind) if entry.name in known)[:COLUMNS]


def _draw(task: collect.Task, table: tables.Table, so_far: str) -> Shown:
    beside = ", the paper's number after the dot" if any(table.has_paper) else ""
    shown = Shown(title=f"{task.name}: {so_far}value [95 % interval]{beside}", title_justify="left", pad_edge=False)
    shown.add_column("row")
    for entry in table.columns:
        shown.add_column(tables.name_column(entry), justify="right")
    for row in table.rows:
        shown.add_row(row.name, *(tables.join_texts(cell).replace("*", "") for cell in row.cells))
    return shown


if __name__ == "__main__":
    named = [word for word in sys.argv[1:] if word in KINDS]
    show(named, Console(), frozenset(Path(word) for word in sys.argv[1:] if word not in KINDS))
