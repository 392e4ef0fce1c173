"""METHODS.md: what every method minimises and where it comes from, its options, its rows, and what they measured.

Written by `make readme` from the methods' own docstrings and sources, `params.yaml` and `results/published/`.
"""

import dataclasses
import inspect
from pathlib import Path

import published

from palinode import methods, params
from palinode.core import io
from palinode.metrics import registry
from palinode.pipeline.stage import run_tool
from palinode.report import tables
from palinode.report.collect import Task
from palinode.report.reference_tables import read_mapping

HEAD = """# Methods

One section a method of `src/palinode/methods/`, written by `make readme` from the method's own text, `params.yaml` and
`results/published/`. It says what the method minimises, which paper that is from and how this project deviates from it.
Then come its options, its rows with their settings, and what these measured in the published runs: value [95 %
interval]. A row without numbers is in no published run. An equation has a number where one could be checked, and the
repository is the official code at the commit that was read. Lines "Against its code" give the largest difference where
both were run on the same small tensors ([docs/official-code.md](docs/official-code.md)).
Seconds and peak memory belong to a machine: a run writes them to `out/log.jsonl`, and git does not keep them.
"""
NAMED = ("lr", "steps", "trainable")  # what a task may change in a row, besides the method's options


def pages(root: Path = Path(".")) -> str:
    """The whole of METHODS.md."""
    loaded = params.load(root / "params.yaml")
    tasks = [task for folder in published.list_runs(root) for task in published.Run.read(folder).tasks]
    return "\n".join([HEAD, *(write_page(name, loaded, tasks, root) for name in methods.names())])


def write_page(name: str, loaded: params.Params, tasks: list[Task], root: Path) -> str:
    """The section of one method."""
    cls = methods.find(name)
    rows = [row for row, settings in loaded.rows.items() if settings.method == name]
    module = inspect.getmodule(cls)
    title = (module and module.__doc__) or ""
    lines = [f"## `{name}`", "", title.strip(), "", escape(inspect.getdoc(cls) or ""), ""]
    lines += [*list_source(cls.source), ""]
    lines += [describe_needs(name, rows, loaded), "", describe_options(cls), ""]
    lines += [*(f"- {describe_row(row, loaded)}" for row in rows), ""] if rows else ["No row uses it.", ""]
    return "\n".join([*lines, *list_tables(rows, tasks, root)])


def list_source(source: methods.Source | None) -> list[str]:
    """Paper, equation, repository and deviations, a line each."""
    if source is None:
        return ["It names no source."]
    links = [f"[arXiv {source.arxiv}](https://arxiv.org/abs/{source.arxiv})"] if source.arxiv else []
    paper = ", ".join([escape(source.paper), *links, *([source.venue] if source.venue else [])])
    lines = [f"- Paper: {paper}."]
    if source.equation:
        lines.append(f"- Implemented: {escape(source.equation)}.")
    if source.repository:
        lines.append(f"- Compared with: {escape(source.repository)}.")
    lines += [f"- Against its code: {escape(finding)}" for finding in source.compared]
    return lines + [f"- Deviation: {escape(deviation)}" for deviation in source.deviations]


def describe_needs(name: str, rows: list[str], loaded: params.Params) -> str:
    """What a task must offer, with the rows where options decide."""
    groups: dict[frozenset[str], list[str]] = {}
    for row in rows:
        needs = methods.load(name, some_options(row, loaded)).needs
        groups.setdefault(needs, []).append(f"`{row}`")
    if not groups:
        return f"Needs: {list_needs(methods.load(name).needs)}."
    if len(groups) == 1:
        return f"Needs: {list_needs(next(iter(groups)))}."
    return "Needs: " + "; ".join(f"{list_needs(needs)} ({', '.join(names)})" for needs, names in groups.items()) + "."


def some_options(row: str, loaded: params.Params) -> dict:
    """A row's options on the first task that changes them: some options have a value by task alone."""
    for kind in params.KINDS:
        for name, task in loaded.tasks_of(kind).items():
            if row in task.overrides:
                return loaded.row(name, row).options
    return loaded.rows[row].options


def list_needs(words: frozenset[str]) -> str:
    return "; ".join(methods.NEEDS[word] for word in sorted(words)) or "nothing besides retain and forget images"


def describe_options(cls: type[methods.Method]) -> str:
    fields = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    if not fields:
        return "No options."
    return "Options: " + ", ".join(f"`{field.name}` {describe_default(field)}" for field in fields) + "."


def describe_default(field: dataclasses.Field) -> str:
    return "(required)" if field.default is dataclasses.MISSING else f"= {field.default}"


def describe_row(row: str, loaded: params.Params) -> str:
    """A row's settings, and what tasks change in them."""
    settings = loaded.rows[row]
    own = {"lr": f"{settings.lr:g}", "steps": settings.steps, "trainable": settings.trainable}
    own |= settings.options | ({} if settings.clipped else {"clip": "none"})
    changes: dict[str, list[str]] = {}
    for kind in params.KINDS:
        for name, task in loaded.tasks_of(kind).items():
            override = task.overrides.get(row)
            if override is None or name.endswith("-val"):  # a validation task is set as what it stands for
                continue
            changed = {key: getattr(override, key) for key in NAMED if getattr(override, key) is not None}
            changes.setdefault(list_settings(changed | override.options), []).append(f"`{name}`")
    lines = [f"`{row}`: {list_settings(own)}"]
    return "; ".join([*lines, *(f"{changed} in {', '.join(names)}" for changed, names in changes.items())])


def list_settings(settings: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def list_tables(rows: list[str], tasks: list[Task], root: Path) -> list[str]:
    """A table for each published task that has one of the rows: headline metrics, and what a sample costs."""
    mapping = read_mapping(root / "reference")
    lines = []
    for task in tasks:
        shown = [row for row in task.rows if row.name in rows]
        known = {name for row in shown for name in task.metrics if row.estimate(name).value is not None}
        entries = (*registry.columns(task.kind), registry.lookup("cost_per_sample"))
        columns = tuple(entry for entry in entries if entry.name in known)
        if columns:
            seeds = ", ".join(map(str, task.seeds))
            table = tables.build(task, columns, None, mapping, shown)
            lines += [f"Measured on `{task.name}`, seed {seeds}:", "", tables.markdown(table)]
    return lines


def escape(text: str) -> str:
    """Formulas as they stand: Markdown's own signs lose their meaning."""
    return "".join(f"\\{sign}" if sign in "*_<|" else sign for sign in text)


def run() -> None:
    io.write_text(Path("METHODS.md"), pages())


if __name__ == "__main__":
    run_tool(run)
