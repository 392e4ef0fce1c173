"""Build every output of the report from the cells: the entry point of the report stage."""

from pathlib import Path

from palinode.core import io
from palinode.metrics import registry
from palinode.params.report_settings import ReportSettings
from palinode.report import claims, fronts, loss_curves, page, pictures, records, strips, tables
from palinode.report.collect import Task, collect
from palinode.report.sections import base_models, detector_scores, prompt_results

CURVES = {"retain": "training", "forget": "training-forget"}  # loss -> folder of results/plots with its curves
SUMMARY_COLUMNS = 4


def build(settings: ReportSettings, root: Path = Path(".")) -> str:
    """Write `results/` and `report/index.html` under `root`; return the summary for the terminal.

    The reference tables are read from `root/reference`.
    """
    tasks = collect(settings, root)
    results = claims.evaluate(tasks, root / "reference")
    contacts = {task.name: strips.draw_contact(task) for task in tasks if task.kind == "images"}
    base_views = base_models.views(settings.bases, root)
    detected = detector_scores.views(settings.detected, root)
    html = page.render(tasks, results, root / "reference", contacts, base_views, detected)
    folder = root / "results"
    io.write_csv(folder / "metrics.csv", records.list_records(tasks), records.FIELDS)
    io.write_json(folder / "metrics.json", records.headline(tasks))
    write_plots(tasks, folder / "plots")
    with io.atomic(folder / "figure.png") as temporary:
        temporary.write_bytes(next(iter(contacts.values()), None) or draw_figure(tasks))
    io.write_text(root / "report" / "index.html", html)
    return summarise(tasks, results)


def write_plots(tasks: list[Task], folder: Path) -> None:
    """What `dvc plots` draws: the first front, and a curve a row of each loss in CURVES."""
    columns, front = fronts.list_front(tasks)
    io.write_csv(folder / "pareto.csv", front, columns)
    for loss, name in CURVES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, curve in loss_curves.list_curves(tasks, loss).items():
            io.write_csv(folder / name / file, curve)


def draw_figure(tasks: list[Task]) -> bytes:
    """The picture of a run without an images task: the target's training prompts, or what a base has memorized."""
    for task in tasks:
        if task.kind == "concept":
            _, first, texts = pictures.list_prompt_sets(task)[0]
            return strips.draw_prompt_set(task, first, len(texts))
    for task in tasks:
        for row in task.rows:
            files = prompt_results.list_files(row)
            if files:
                return pictures.stack_files(files)
    return pictures.encode_png(pictures.EMPTY)


def summarise(tasks: list[Task], results: list[claims.Result]) -> str:
    """Headline numbers and verdicts as plain text."""
    lines = []
    for task in tasks:
        known = set(task.metrics)
        columns = [entry for entry in registry.columns(task.kind) if entry.name in known][:SUMMARY_COLUMNS]
        heads = [entry.name + (" %" if entry.shown_unit == "%" else "") for entry in columns]
        lines.append(f"{task.name:<16}" + "".join(f"{head:>26}" for head in heads))
        for row in task.rows:
            values = [tables.show(row.estimate(entry.name).value, entry) or "absent" for entry in columns]
            lines.append(f"{row.name:<16}" + "".join(f"{value:>26}" for value in values))
        lines.append("")
    for result in results:
        if result.share is not None and result.verdict in ("fails", "undecided"):
            share = page.show_share(result.share)
            lines.append(f"{result.verdict} ({share} of replicates): {result.claim['statement']}")
    counts = page.count_verdicts(results)
    lines.append("claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return "\n".join(lines)
