"""Build every output of the report from the cells: the one entry point of the report stage."""

from pathlib import Path

from palinode import io
from palinode.report import bases, claims, collect, detection, page, plots, tables
from palinode.report.collect import Task


def build(settings: dict, root: Path = Path(".")) -> str:
    """Write `results/` and `report/index.html` under `root`; return the summary for the terminal.

    `settings` as in `palinode.report.collect`; the reference tables are read from `root/reference`.
    """
    tasks = collect.collect(settings, root)
    results = claims.evaluate(tasks, root / "reference")
    contacts = {task.name: plots.contact(task) for task in tasks if task.family == "data"}
    base_views = bases.views(settings.get("bases", []), root)
    detected = detection.views(settings.get("detected", []), root)
    html = page.render(tasks, results, root / "reference", contacts, base_views, detected)
    folder = root / "results"
    io.write_text(folder / "metrics.csv", collect.to_csv(collect.FIELDS, collect.tidy(tasks)))
    io.write_json(folder / "metrics.json", collect.headline(tasks))
    io.write_text(folder / "plots" / "pareto.csv", plots.pareto_csv(tasks))
    for name, table in plots.training_csvs(tasks).items():
        io.write_text(folder / "plots" / "training" / name, table)
    with io.atomic(folder / "figure.png") as temporary:
        temporary.write_bytes(next(iter(contacts.values()), None) or plots.given(tasks[0]))
    io.write_text(root / "report" / "index.html", html)
    return summary(tasks, results)


def summary(tasks: list[Task], results: list[claims.Result]) -> str:
    """Headline numbers and verdicts as plain text."""
    lines = []
    for task in tasks:
        known = set(task.metrics)
        columns = [column for column in tables.MAIN[task.family] if column.metric in known][:4]
        heads = [column.metric + (" %" if column.unit == "%" else "") for column in columns]
        lines.append(f"{task.name:<16}" + "".join(f"{head:>24}" for head in heads))
        for row in task.rows:
            values = [tables.show(row.estimate(column.metric).value, column) or "absent" for column in columns]
            lines.append(f"{row.name:<16}" + "".join(f"{value:>24}" for value in values))
        lines.append("")
    for result in results:
        if result.verdict in ("fails", "undecided"):
            lines.append(f"{result.verdict} ({page.share(result.share)} of replicates): {result.claim['statement']}")
    counts = page.verdict_counts(results)
    lines.append("claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return "\n".join(lines)
