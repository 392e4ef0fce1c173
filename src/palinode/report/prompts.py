"""A task's part on memorised prompts: which ones are forgotten, which were refused, and what the models drew."""

from palinode import io
from palinode.report import images
from palinode.report.collect import Task


def view(task: Task) -> dict:
    """What the template shows of a task of the family prompts."""
    folder = task.root / "out" / "data" / task.name
    found = io.read_json(folder / "prompts.json")
    sheet = folder / "clusters.png"
    return {
        "reason": found["reason"],
        "least": share(found["least"]),
        "prompts": [it | {"edits": [f"{text} ({share(part)})" for text, part in it["edits"]],
                          "memorised": interval(it["memorised"]), "agrees": interval(it["agrees"])}
                    for it in found["prompts"]],
        "refused": found["refused"],
        "clusters": images.data_uri(sheet.read_bytes()) if sheet.exists() else None,
    }  # fmt: skip


def strips(task: Task) -> list[tuple[str, str, str]]:
    """(row, PNG, note) of every row with pictures, first seed."""
    note = ("One line a step looked at, the first being the base; the prompts below one another. Left half: the "
            "modified prompt, right half: the original, from the same noises.")
    paths = {row.name: row.cells[0].folder / "evaluation/strips.png" for row in task.rows}
    return [(name, images.data_uri(path.read_bytes()), note) for name, path in paths.items() if path.exists()]


def share(value: float) -> str:
    return f"{100 * value:.0f} %"


def interval(entry: dict) -> str:
    return f"{share(entry['value'])} [{100 * entry['lo']:.0f}, {100 * entry['hi']:.0f}] of {entry['n']}"
