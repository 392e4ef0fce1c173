"""The static report page: one HTML file, no request to anywhere, the same bytes for the same cells."""

from collections import Counter
from importlib import resources
from pathlib import Path

from palinode.data.captions import STYLES
from palinode.report import images, plots, prompts, robustness, strengths, tables
from palinode.report.claims import VERDICTS, Result, read_mapping, read_tables
from palinode.report.collect import Task

MARKS = {"holds": "✓", "fails": "✕", "undecided": "~", "untested": "–"}
INTERVALS = {"bootstrap": "bootstrap over samples", "wilson": "Wilson for rates", "t": "Student t over seeds",
             "wilson-t": "for rates at least Wilson's for the pictures of one seed"}
SETTINGS = ("method", "paper", "lr", "steps", "options")  # columns of the settings table


def render(
    tasks: list[Task],
    results: list[Result],
    folder: Path,
    contacts: dict[str, bytes],
    base_views: list[dict],
    detected: list[dict],
) -> str:
    """The page as HTML.

    folder: of the reference tables; contacts: contact strips (PNG) of data tasks; base_views, detected: as of
    `bases.views` and `detection.views`.
    """
    import jinja2

    mapping = read_mapping(folder)
    papers = {table["id"]: table for table in read_tables(folder)}
    source = resources.files("palinode.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.globals.update(marks=MARKS, row_notes=tables.ROW_NOTES, share=share, brief=brief, agreement=agreement)
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.table["id"], []).append(result)
    reached = {name: items for name, items in grouped.items() if any(item.task for item in items)}
    ordered = sorted(reached, key=lambda name: papers[name]["source"] == "project")
    return environment.from_string((source / "page.html").read_text(encoding="utf-8")).render(
        css=_safe((source / "page.css").read_text(encoding="utf-8")),
        counts=verdict_counts(results),
        tasks=[view(task, papers, mapping, contacts.get(task.name)) for task in tasks],
        bases=[base | {"curves": _safe(base["curves"])} for base in base_views],
        detected=[base | {"figure": _safe(base["figure"])} for base in detected],
        styles=STYLES,
        claim_tables=[(papers[name], reached[name]) for name in ordered],
        out_of_scope=[(papers[name], items) for name, items in grouped.items() if name not in reached],
    )


def _safe(text: str) -> object:
    from markupsafe import Markup

    return Markup(text)


def verdict_counts(results: list[Result]) -> dict[str, int]:
    counts = Counter(result.verdict for result in results)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def share(value: float) -> str:
    return f"{100 * value:.3g} %"


def brief(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def agreement(result: Result) -> str:
    """One sentence on how the verdict stands to the table's own rows."""
    if result.agrees is None:
        return ""
    truth = "true" if result.claim["holds_on_rows"] else "false"
    word = "Agrees" if result.agrees else "Disagrees"
    return f"{word} with the published numbers, on which the statement is {truth}."


def digest(task: Task) -> list[tuple[str, str]]:
    """Settings that all rows of a task share, and how many samples each metric rests on, as (name, text)."""
    trainings = [row.settings["training"] for row in task.rows if not row.reference]
    shared = {key: value for key, value in trainings[0].items() if all(other[key] == value for other in trainings)}
    counts: dict[int, list[str]] = {}
    for name in task.metrics:
        for n in sorted({cell.metrics[name]["n"] for row in task.rows for cell in row.cells if name in cell.metrics}):
            counts.setdefault(n, []).append(name)
    measured = [(f"n = {n}", ", ".join(names)) for n, names in sorted(counts.items()) if n]
    return [("family", task.family), ("seeds", ", ".join(str(seed) for seed in task.seeds)),
            ("training", setting(shared)), *measured]


def view(task: Task, papers: dict[str, dict], mapping: dict, contact: bytes | None) -> dict:
    """Everything the template shows of one task. contact: the strip of a data task."""
    unlearned = [row for row in task.rows if not row.reference]
    used = {cell.metrics[name]["interval"] for row in task.rows for cell in row.cells for name in cell.metrics}
    used |= {row.estimate(name).interval for row in task.rows if len(row.cells) > 1 for name in task.metrics}
    curves, attacks, equal = plots.curves(task), robustness.view(task, mapping), strengths.view(task)
    pictures = {"data": lambda: data_pictures(task, contact), "concept": lambda: concept_pictures(task),
                "prompts": lambda: {"strips": prompts.strips(task), "sheets": []}}
    return pictures[task.family]() | {
        "name": task.name,
        "family": task.family,
        "main": tables.main_table(task, papers, mapping),
        "cost": tables.cost_table(task, papers, mapping),
        "copies": tables.build(task, tables.COPIES, None, mapping) if "copy_rate" in task.metrics else None,
        "full": tables.full_table(task),
        "absences": tables.absences(task),
        "row_names": [row.name for row in task.rows],
        "intervals": ", ".join(text for kind, text in INTERVALS.items() if kind in used),
        "pareto": [_safe(svg) for front in plots.FRONTS[task.family] if (svg := plots.pareto(task, *front))],
        "curves": _safe(curves) if curves else None,
        "prompts": prompts.view(task) if task.family == "prompts" else None,
        "equal": equal | {"figure": _safe(equal["figure"])} if equal else None,
        "attacks": attacks | {"figure": _safe(attacks["figure"])} if attacks else None,
        "settings_heads": ["row", *SETTINGS],
        "settings_rows": [(row.name, [setting((row.settings | row.settings["training"])[key]) for key in SETTINGS])
                          for row in unlearned],
        "digest": digest(task),
    }


def data_pictures(task: Task, contact: bytes) -> dict:
    """The contact strip and one paired sheet a row."""
    chosen = images.columns(task)
    shown = [row for row in images.paired_rows(task) if row.name != "base"]
    hits = int(images.hits(task, images.samples(task.row("base"))[chosen]).sum())
    note = ("One line a row, one initial noise (and noise of every step) a column. " +
            (f"The first {hits} columns were chosen because the base model draws the image to forget there; the others "
             "are simply the first ones. " if hits else "The base model does not draw the image to forget here. ") +
            "Orange frames mark copies of it.")
    sheets = [{"row": row.name, "count": len(chosen), "uri": images.data_uri(images.paired_sheet(task, row, chosen))}
              for row in shown]
    return {"strips": [("", images.data_uri(contact), note)], "sheets": sheets}


def concept_pictures(task: Task) -> dict:
    """One strip a stratum: the same prompts and noise in every row."""
    found = []
    for stratum, first, texts in images.strata(task):
        asked = "; ".join(dict.fromkeys(texts)) or "the empty prompt"
        strip = images.data_uri(plots.strip(task, list(range(first, first + len(texts)))))
        found.append((stratum, strip, f"One line a row, one prompt and noise a column. Asked for: {asked}."))
    return {"strips": found, "sheets": []}


def setting(value: object) -> str:
    """A setting as text; an empty one is a dash."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {setting(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list):
        return "(" + ", ".join(setting(item) for item in value) + ")"
    return "–" if value is None else str(value)
