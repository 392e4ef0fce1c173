"""METHODS.md: what every method minimises and where it comes from, its options, its rows, and what they measured.

Written by `make readme` from the methods' own docstrings, `params.yaml` and `results/published/`.
"""

import dataclasses
import inspect
import pkgutil
from pathlib import Path

import readme
import yaml

from palinode import io, methods, params
from palinode.report import tables
from palinode.report.collect import Row, Task
from palinode.stage import main

HEAD = """# Methods

One section a method of `src/palinode/methods/`, written by `make readme` from the method's own text, `params.yaml` and
`results/published/`: what it minimises with its source and deviations, its options, its rows with their settings, and
what these measured in the published runs (value [95 % interval]). A row without numbers is in no published run.
Seconds and peak memory belong to a machine: a run writes them to `out/log.jsonl`, and git does not keep them.
"""


def pages(root: Path = Path(".")) -> str:
    """The whole of METHODS.md."""
    loaded = params.load(root / "params.yaml")
    published = [
        task
        for folder in readme.runs(root)
        for task in readme.read_tasks(folder, yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")))
    ]
    names = [module.name for module in pkgutil.iter_modules(methods.__path__) if not module.name.startswith("_")]
    return "\n".join([HEAD, *(page(name, loaded, published) for name in sorted(names))])


def page(name: str, loaded: params.Params, published: list[Task]) -> str:
    """The section of one method."""
    cls = methods.find(name)
    options = [f"`{field.name}` {_default(field)}" for field in dataclasses.fields(cls) if field.init]
    rows = [row for row, settings in loaded.rows.items() if settings.method == name]
    lines = [f"## `{name}`", "", inspect.getmodule(cls).__doc__.strip(), "", _escape(inspect.getdoc(cls)), ""]
    lines += [f"Options: {', '.join(options)}." if options else "No options.", ""]
    lines += [f"- {_settings(row, loaded)}" for row in rows] or ["No row uses it."]
    lines += [f"  - {found}" for row in rows for found in _measured(row, published)]
    return "\n".join(lines) + "\n"


def _default(field: dataclasses.Field) -> str:
    return "(required)" if field.default is dataclasses.MISSING else f"= {field.default}"


def _settings(row: str, loaded: params.Params) -> str:
    settings = loaded.rows[row]
    parts = [f"lr {settings.lr:g}", f"{settings.steps} steps"]
    parts += [f"{key} {value}" for key, value in settings.options.items()]
    parts += [f"trains {settings.trainable}"] if settings.trainable != "all" else []
    for name, task in (loaded.tasks | loaded.concept_tasks | loaded.prompt_tasks).items():
        if row in task.overrides:
            changed = task.overrides[row].model_dump(exclude_none=True, exclude_defaults=True)
            parts.append(f"in {name}: " + ", ".join(f"{key} {value}" for key, value in changed.items()))
    return f"`{row}`: {'; '.join(parts)}"


def _measured(row: str, published: list[Task]) -> list[str]:
    """One line a published task that has the row: its headline metrics and its cost."""
    lines = []
    for task in published:
        found: list[Row] = [one for one in task.rows if one.name == row]
        shown = []
        for column in (*tables.MAIN[task.family], tables.COST[-1]):
            item = found[0].estimate(column.metric) if found else None
            if item and item.value is not None:
                unit = f" {column.unit}" if column.unit else ""
                text = f"{column.label} {tables.show(item.value, column)} {tables.show_interval(item, column)}"
                shown.append(text.strip() + unit)
        if shown:
            lines.append(f"`{row}` on `{task.name}`: {'; '.join(shown)}")
    return lines


def _escape(text: str) -> str:
    """Formulas as they stand: Markdown's own signs lose their meaning."""
    return "".join(f"\\{sign}" if sign in "*_<|" else sign for sign in text)


def run() -> None:
    io.write_text(Path("METHODS.md"), pages())


if __name__ == "__main__":
    main(run)
