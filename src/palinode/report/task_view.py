"""Everything the page shows of one task."""

from typing import Any

from markupsafe import Markup

from palinode.metrics import registry
from palinode.report import fronts, loss_curves, pictures, strips, tables
from palinode.report.collect import Row, Task
from palinode.report.sections import attack_results, equal_footing, prompt_results, second_opinions

INTERVALS = {
    "bootstrap": "of one seed, a bootstrap of its pictures alone: they say nothing of other trainings",
    "wilson": "of one seed's rates, Wilson's for its pictures alone",
    "seeds": "of several seeds, what varies between them added to what varies between pictures",
    "subjects": "of several subjects, what varies between these besides",
}
SETTINGS = ("method", "paper", "lr", "steps", "options")  # columns of the settings table


def view(task: Task, papers: dict[str, dict], mapping: dict, contact: bytes | None) -> dict[str, Any]:
    """What the template shows of a task. contact: the strip of an images task."""
    curves = loss_curves.draw_curves(task)
    return show_pictures(task, contact) | {
        "name": task.name,
        "kind": task.kind,
        "main": tables.main_table(task, papers, mapping),
        "cost": tables.cost_table(task, papers, mapping),
        "copies": tables.build(task, registry.COPIES, None, mapping) if "copy_rate" in task.metrics else None,
        "full": tables.full_table(task),
        "absences": tables.list_absences(task),
        "row_names": [row.name for row in task.rows],
        "intervals": "; ".join(list_intervals(task)),
        "averaged": len(task.subjects) if len(task.subjects) > 1 else 0,
        "fronts": [Markup(svg) for svg in fronts.draw_fronts(task)],
        "curves": Markup(curves) if curves else None,
        "losses": loss_curves.describe_losses(task),
        "discriminators": Markup(told) if (told := loss_curves.draw_discriminators(task)) else None,
        "prompts": prompt_results.view(task) if task.kind == "prompts" else None,
        "opinions": second_opinions.view(task) if task.kind == "concept" else None,
        "equal": mark_figure(equal_footing.view(task)),
        "attacks": mark_figure(attack_results.view(task, mapping)),
        "settings_heads": ["row", *SETTINGS],
        "settings_rows": [(row.name, list_settings(row)) for row in task.unlearned],
        "digest": list_shared(task),
    }


def mark_figure(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """The part with its figure marked as safe HTML."""
    return part and part | {"figure": Markup(part["figure"])}


def list_intervals(task: Task) -> list[str]:
    """What the intervals of the task's tables are."""
    kinds = {row.estimate(metric).interval for row in task.rows for metric in task.metrics}
    kinds |= {entry["interval"] for row in task.rows for cell in row.cells for entry in cell.metrics.values()}
    return [text for kind, text in INTERVALS.items() if kind in kinds]


def list_settings(row: Row) -> list[str]:
    assert row.settings is not None
    values = row.settings.model_dump() | row.settings.training.model_dump()
    return [show_setting(values[key]) for key in SETTINGS]


def list_shared(task: Task) -> list[tuple[str, str]]:
    """Settings that all rows of a task share, and how many samples each metric rests on, as (name, text)."""
    counts: dict[int, dict[str, None]] = {}
    for row in task.rows:
        for cell in row.cells:
            for name, entry in cell.metrics.items():
                counts.setdefault(entry["n"], {})[name] = None
    return [
        ("kind", task.kind),
        ("subjects", ", ".join(task.subjects)),
        ("seeds", ", ".join(str(seed) for seed in task.seeds)),
        ("training", show_setting(shared_training(task))),
        *((f"n = {n}", ", ".join(names)) for n, names in sorted(counts.items()) if n),
    ]


def shared_training(task: Task) -> dict[str, object]:
    trainings = [row.settings.training.model_dump() for row in task.unlearned if row.settings]
    first = trainings[0] if trainings else {}
    return {key: value for key, value in first.items() if all(other[key] == value for other in trainings)}


def show_setting(value: object) -> str:
    """A setting as text; an empty one is a dash."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {show_setting(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(show_setting(item) for item in value) + ")"
    return "–" if value is None else str(value)


def show_pictures(task: Task, contact: bytes | None) -> dict[str, Any]:
    """strips: (title, picture, note); sheets: one paired sheet a row, of images tasks."""
    if task.kind == "images":
        return show_images(task, contact)
    if task.kind == "concept":
        return {"strips": show_prompt_sets(task), "sheets": []}
    return {"strips": prompt_results.list_strips(task), "sheets": []}


def show_images(task: Task, contact: bytes | None) -> dict[str, Any]:
    """The contact strip and one paired sheet a row."""
    assert contact is not None
    chosen = pictures.choose_samples(task)
    (_, base), *others = pictures.list_paired_rows(task)
    sheets = [
        {
            "row": row.name,
            "count": len(chosen),
            "uri": pictures.data_uri(pictures.draw_paired_sheet(base[chosen], samples[chosen])),
        }
        for row, samples in others
    ]
    note = describe_columns(int(pictures.find_hits(task, base[chosen]).sum()))
    return {"strips": [("", pictures.data_uri(contact), note)], "sheets": sheets}


def describe_columns(hits: int) -> str:
    """What the columns of the contact strip are. hits: how many of them the base draws as a forget image."""
    text = "One line a row, one initial noise (and noise of every step) a column. "
    if hits:
        text += (
            f"The first {hits} columns were chosen because the base model draws the image to forget there; the others "
            "are simply the first ones. "
        )
    else:
        text += "The base model does not draw the image to forget here. "
    return text + "Orange frames mark copies of it."


def show_prompt_sets(task: Task) -> list[tuple[str, str, str]]:
    """One strip a prompt set: the same prompts and noise in every row."""
    parts = []
    for name, first, texts in pictures.list_prompt_sets(task):
        prompts = "; ".join(text or "the null prompt" for text in dict.fromkeys(texts))
        strip = pictures.data_uri(strips.draw_prompt_set(task, first, len(texts)))
        parts.append((name, strip, f"One line a row, one prompt and noise a column. Prompts: {prompts}."))
    return parts
