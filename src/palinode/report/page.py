"""The static report page: one HTML file, no request to anywhere, the same bytes for the same cells."""

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from palinode.data.captions import STYLES
from palinode.report import tables, task_view
from palinode.report.claims import VERDICTS, Result
from palinode.report.collect import Task
from palinode.report.reference_tables import read_mapping, read_tables

MARKS = {"holds": "✓", "fails": "✕", "undecided": "~", "by construction": "=", "untested": "–"}


def render(
    tasks: list[Task],
    results: list[Result],
    folder: Path,
    contacts: dict[str, bytes],
    base_views: list[dict[str, Any]],
    detected: list[dict[str, Any]],
) -> str:
    """The page as HTML.

    folder: of the reference tables; contacts: contact strips (PNG) of images tasks; base_views, detected: as of
    `base_models.views` and `detector_scores.views`.
    """
    import jinja2

    mapping = read_mapping(folder)
    papers = {table["id"]: table for table in read_tables(folder)}
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.table["id"], []).append(result)
    reached = {name: items for name, items in grouped.items() if any(item.task for item in items)}
    ordered = sorted(reached, key=lambda name: papers[name]["source"] == "project")
    source = resources.files("palinode.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.globals.update(
        marks=MARKS,
        arrows=tables.ARROWS,
        row_notes=tables.ROW_NOTES,
        share=show_share,
        brief=show_number,
        agreement=describe_agreement,
    )
    template = environment.from_string((source / "page.html").read_text(encoding="utf-8"))
    return template.render(
        css=Markup((source / "page.css").read_text(encoding="utf-8")),
        counts=count_verdicts(results),
        tasks=[task_view.view(task, papers, mapping, contacts.get(task.name)) for task in tasks],
        bases=[base | {"curves": Markup(base["curves"])} for base in base_views],
        detected=[task_view.mark_figure(base) for base in detected],
        styles=STYLES,
        claim_tables=[(papers[name], reached[name]) for name in ordered],
        out_of_scope=[(papers[name], items) for name, items in grouped.items() if name not in reached],
    )


def count_verdicts(results: list[Result]) -> dict[str, int]:
    counts = Counter(result.verdict for result in results)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def show_share(value: float) -> str:
    return f"{100 * value:.3g} %"


def show_number(value: float | None) -> str:
    return tables.brief(value) or "–"


def describe_agreement(result: Result) -> str:
    """One sentence on how the verdict stands to the table's own rows."""
    if result.agrees is None:
        return ""
    truth = "true" if result.claim["holds_on_rows"] else "false"
    word = "Agrees" if result.agrees else "Disagrees"
    return f"{word} with the published numbers, on which the statement is {truth}."
