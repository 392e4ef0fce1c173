"""METHODS.md: what every method minimises and where it comes from, its options, its rows, and what they measured.

Written by `make readme` from the methods' own docstrings, `params.yaml` and `results/published/`.
"""

import dataclasses
import inspect
import pkgutil
from pathlib import Path

import published

from palinode import io, methods, params
from palinode.report import claims, tables
from palinode.report.collect import Task
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
    tasks = [task for folder in published.runs(root) for task in published.Run.read(folder).tasks]
    names = [module.name for module in pkgutil.iter_modules(methods.__path__) if not module.name.startswith("_")]
    return "\n".join([HEAD, *(page(name, loaded, tasks, root) for name in sorted(names))])


def page(name: str, loaded: params.Params, tasks: list[Task], root: Path) -> str:
    """The section of one method."""
    cls = methods.find(name)
    options = [f"`{field.name}` {_default(field)}" for field in dataclasses.fields(cls) if field.init]
    rows = [row for row, settings in loaded.rows.items() if settings.method == name]
    lines = [f"## `{name}`", "", inspect.getmodule(cls).__doc__.strip(), "", _escape(inspect.getdoc(cls)), ""]
    lines += [f"Options: {', '.join(options)}." if options else "No options.", ""]
    lines += [*(f"- {_settings(row, loaded)}" for row in rows), ""] if rows else ["No row uses it.", ""]
    return "\n".join([*lines, *_measured(rows, tasks, root)])


def _default(field: dataclasses.Field) -> str:
    return "(required)" if field.default is dataclasses.MISSING else f"= {field.default}"


def _settings(row: str, loaded: params.Params) -> str:
    settings, changes = loaded.rows[row], {}
    own = {"lr": f"{settings.lr:g}", "steps": settings.steps, "trainable": settings.trainable} | settings.options
    for name, task in (loaded.tasks | loaded.concept_tasks | loaded.prompt_tasks).items():
        if row in task.overrides and not name.endswith("-val"):  # a validation task is set as what it stands for
            changed = task.overrides[row].model_dump(exclude_none=True, exclude_defaults=True)
            changes.setdefault(_listed(changed | changed.pop("options", {})), []).append(f"`{name}`")
    return "; ".join([f"`{row}`: {_listed(own)}", *(f"{what} in {', '.join(some)}" for what, some in changes.items())])


def _listed(settings: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _measured(rows: list[str], tasks: list[Task], root: Path) -> list[str]:
    """A table for each published task that has one of the rows: headline metrics, and what a sample costs."""
    mapping, found = claims.read_mapping(root / "reference"), []
    for task in tasks:
        some = [row for row in task.rows if row.name in rows]
        known = {name for row in some for name in task.metrics if row.estimate(name).value is not None}
        columns = tuple(it for it in (*tables.MAIN[task.family], tables.COST[-1]) if it.metric in known)
        if columns:
            table = tables.build(task, columns, None, mapping, some)
            seeds = ", ".join(map(str, task.seeds))
            found += [f"Measured on `{task.name}`, seed {seeds}:", "", tables.markdown(table)]
    return found


def _escape(text: str) -> str:
    """Formulas as they stand: Markdown's own signs lose their meaning."""
    return "".join(f"\\{sign}" if sign in "*_<|" else sign for sign in text)


def run() -> None:
    io.write_text(Path("METHODS.md"), pages())


if __name__ == "__main__":
    main(run)
