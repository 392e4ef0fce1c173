"""Headline tables in the terminal, the papers' numbers beside: `python -m palinode.report.terminal [images|...]`."""

import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from palinode.core.work import PLANS, read_plan
from palinode.metrics import registry
from palinode.params.stage_settings import ReportSettings
from palinode.report import collect, reference_tables, tables

COLUMNS = 4


def show(kinds: list[str], console: Console) -> None:
    """The tables of these kinds of tasks, whose cells all have to be evaluated; of every kind when none is named."""
    settings = read_plan(PLANS / "report.json", ReportSettings)
    folder = Path("reference")
    papers = {table["id"]: table for table in reference_tables.read_tables(folder)}
    mapping = reference_tables.read_mapping(folder)
    for task in settings.tasks:
        if not kinds or task.kind in kinds:
            read = collect.read_task(task, settings.seeds, defaultdict(list), Path())
            console.print(_draw(read, tables.main_table(read, papers, mapping, _choose_columns(read))))


def _choose_columns(task: collect.Task) -> tuple[registry.Entry, ...]:
    known = set(task.metrics)
    return tuple(entry for entry in registry.columns(task.kind) if entry.name in known)[:COLUMNS]


def _draw(task: collect.Task, table: tables.Table) -> Shown:
    beside = ", the paper's number after the dot" if any(table.has_paper) else ""
    shown = Shown(title=f"{task.name}: value [95 % interval]{beside}", title_justify="left", pad_edge=False)
    shown.add_column("row")
    for entry in table.columns:
        shown.add_column(tables.name_column(entry), justify="right")
    for row in table.rows:
        shown.add_row(row.name, *(tables.join_texts(cell).replace("*", "") for cell in row.cells))
    return shown


if __name__ == "__main__":
    show(sys.argv[1:], Console())
