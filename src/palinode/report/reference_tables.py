"""The papers' tables in `reference/`, and how this project's tasks, rows and metrics correspond to them."""

from pathlib import Path

import yaml

from palinode.core.errors import UserError
from palinode.report.collect import Task


def read_tables(folder: Path) -> list[dict]:
    """All tables of `folder/*.yaml` but `mapping.yaml`, in file order; an id used twice is a UserError."""
    tables: list[dict] = []
    ids: set[str] = set()
    for path in sorted(folder.glob("*.yaml")):
        if path.name == "mapping.yaml":
            continue
        for table in yaml.safe_load(path.read_text(encoding="utf-8")):
            for name in (table["id"], *(claim["id"] for claim in table["claims"])):
                if name in ids:
                    raise UserError(f"{path}: the id {name} is used twice")
                ids.add(name)
            tables.append(table)
    return tables


def read_mapping(folder: Path) -> dict:
    """`mapping.yaml`: how this project's tasks, rows and metrics correspond to the tables'."""
    return yaml.safe_load((folder / "mapping.yaml").read_text(encoding="utf-8"))


def find_paper_value(table: dict, reference: str) -> float | None:
    """The table's own number for `row.metric`; None if it has none."""
    row, metric = reference.rsplit(".", 1)
    return table["rows"].get(row, {}).get(metric)


def match_rows(task: Task, mapping: dict) -> dict[str, str]:
    """Paper row id -> name of this run's row: the `paper` of each row, and the reference rows."""
    rows = {paper: name for name, paper in mapping["reference_rows"].items()}
    for row in task.rows:
        if row.paper is None:
            continue
        if row.paper in rows:
            raise UserError(f"task {task.name}: rows {rows[row.paper]} and {row.name} both stand for {row.paper}")
        rows[row.paper] = row.name
    return rows
