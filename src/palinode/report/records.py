"""The run's numbers as files: every estimate as lines of metrics.csv, and the headline for `dvc metrics`."""

from palinode.metrics import registry
from palinode.report.averages import Estimate
from palinode.report.collect import ALL, Row, Task

FIELDS = (
    "kind",
    "task",
    "subject",
    "row",
    "seed",
    "metric",
    "value",
    "lo",
    "hi",
    "n",
    "unit",
    "direction",
    "interval",
    "reason",
)


def list_records(tasks: list[Task]) -> list[dict[str, object]]:
    """One record per (task, row, metric, subject, seed), then one with subject and seed `all`."""
    records = []
    for task in tasks:
        for row in task.rows:
            for metric in task.metrics:
                if row.lists(metric):
                    records += describe_metric(task, row, metric)
    return records


def describe_metric(task: Task, row: Row, metric: str) -> list[dict[str, object]]:
    """The records of one metric of one row."""
    entry = registry.lookup(metric)
    estimates = [(cell.subject, str(cell.seed), cell.estimate(metric)) for cell in row.cells_for(metric)]
    estimates.append((ALL, ALL, row.estimate(metric)))
    return [
        {
            "kind": task.kind,
            "task": task.name,
            "subject": subject,
            "row": row.name,
            "seed": seed,
            "metric": metric,
            "unit": entry.unit,
            "direction": entry.direction,
        }
        | numbers(estimate)
        for subject, seed, estimate in estimates
    ]


def numbers(estimate: Estimate) -> dict[str, object]:
    """What a record says of an estimate; numbers are floats, so that the file has six digits of each."""
    ends = {"value": estimate.value, "lo": estimate.lo, "hi": estimate.hi}
    shown = {name: None if number is None else float(number) for name, number in ends.items()}
    return {**shown, "n": estimate.n, "interval": estimate.interval, "reason": estimate.reason}


def headline(tasks: list[Task]) -> dict[str, dict[str, dict[str, float]]]:
    """`{task: {row: {metric: value}}}`: the metrics of each kind's main table that exist, six digits."""
    return {task.name: {row.name: row_headline(task, row) for row in task.rows} for task in tasks}


def row_headline(task: Task, row: Row) -> dict[str, float]:
    values = {metric: row.estimate(metric).value for metric in registry.headline(task.kind)}
    return {metric: float(f"{value:.6g}") for metric, value in values.items() if value is not None}
