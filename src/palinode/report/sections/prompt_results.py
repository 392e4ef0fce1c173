"""A task's part on memorized prompts: which ones are forgotten, which were refused, and what the models drew."""

from pathlib import Path
from typing import Any

from palinode.core import io
from palinode.report import pictures
from palinode.report.collect import SEQUENTIAL, Row, Task

NOTE = (
    "One line a step of unlearning at which pictures were drawn, the first being the base; the prompts below one "
    "another. Left half: the modified prompt, right half: the original, from the same noises."
)


def view(task: Task) -> dict[str, Any]:
    """What the template shows of a task of the kind `prompts`."""
    folder = task.root / "out/tasks" / task.name
    written = io.read_json(folder / "prompts.json")
    return {
        "reason": written["reason"],
        "least_quality": percent(io.read_arrays(folder / "evaluation.npz")["least_quality"].item()),
        "prompts": [describe_prompt(entry) for entry in written["prompts"]],
        "refused": written["refused"],
        "clusters": pictures.read_sheet(folder, "clusters"),
    }


def describe_prompt(entry: dict) -> dict[str, Any]:
    edits = [f"{text} ({percent(share)})" for text, share in entry["edits"]]
    rates = {name: show_rate(entry[name]) for name in ("memorized", "agrees")}
    return entry | {"edits": edits} | rates


def list_strips(task: Task) -> list[tuple[str, str, str]]:
    """(row, PNG, note) of every row with pictures, first seed, all its prompts."""
    strips = []
    for row in task.rows:
        paths = list_files(row)
        if paths:
            strips.append((row.name, pictures.data_uri(pictures.stack_files(paths)), NOTE))
    return strips


def list_files(row: Row) -> list[Path]:
    """The strips of the row's prompts, one seed each."""
    first: dict[str, Path] = {}
    for cell in row.cells:
        if cell.subject != SEQUENTIAL:
            first.setdefault(cell.subject, cell.folder)
    paths = [folder / "evaluation/strips.png" for folder in first.values()]
    return [path for path in paths if path.exists()]


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def show_rate(entry: dict) -> str:
    return f"{percent(entry['value'])} [{100 * entry['lo']:.0f}, {100 * entry['hi']:.0f}] of {entry['n']}"
