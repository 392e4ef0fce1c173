"""What is kept against what is forgotten: a scatter of rows a front, and the table that `dvc plots` draws from."""

from typing import Any

import numpy as np

from palinode.metrics import registry
from palinode.metrics.registry import Entry
from palinode.report import figures
from palinode.report.averages import Estimate
from palinode.report.collect import Row, Task

WIDE = 30  # from this ratio of values on, an axis is logarithmic
Point = tuple[Row, Estimate, Estimate]


def draw_fronts(task: Task) -> list[str]:
    """The fronts of the task's kind as inline SVG; a front with fewer than two rows is left out."""
    drawings = (draw_front(task, *front) for front in registry.KINDS[task.kind].fronts)
    return [svg for svg in drawings if svg]


def draw_front(task: Task, across: str, up: str) -> str | None:
    """Rows by two metrics with 95 % intervals -> inline SVG; None with fewer than two rows."""
    forgotten = registry.lookup(across)
    kept = registry.lookup(up)
    points = [(row, row.estimate(across), row.estimate(up)) for row in task.rows]
    points = [(row, x, y) for row, x, y in points if x.value is not None and y.value is not None]
    if len(points) < 2:
        return None
    with figures.figure(6.4, 4.0) as (fig, ax):
        for i, point in enumerate(points):
            draw_point(ax, point, forgotten, kept, i)
        scale = set_scale(ax, [x.value for _, x, _ in points if x.value is not None])
        ax.margins(0.08)
        ax.set_xlabel(f"{forgotten.title}, higher = unlearned{scale}")
        ax.set_ylabel(f"{kept.title}, {'higher' if kept.direction == 'up' else 'lower'} = kept")
        fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        title = f"Scatter plot: {kept.label} against {forgotten.label}"
        return figures.inline_svg(fig, f"{task.name}-front-{across}-{up}", title)


def draw_point(ax: Any, point: Point, forgotten: Entry, kept: Entry, i: int) -> None:
    """One row with its whiskers; a hollow mark for a reference row, and dashed lines where base and oracle lie."""
    row, x, y = point
    place = (scaled(x.value, forgotten), scaled(y.value, kept))
    mark = figures.choose_mark(i) | ({"mfc": "none"} if row.reference else {})
    errors = {"xerr": whisker(x, forgotten), "yerr": whisker(y, kept)}
    ax.errorbar(*place, **errors, **mark, ms=6, elinewidth=1, capsize=0, linestyle="none", zorder=3, label=row.name)
    line = {"color": figures.GREY, "linewidth": 0.7, "linestyle": figures.DASHED, "zorder": 1}
    if row.name == "base":
        ax.axhline(place[1], **line)
    if row.name == "oracle":
        ax.axvline(place[0], **line)


def scaled(value: float | None, entry: Entry) -> float:
    return float("nan") if value is None else value * entry.scale


def whisker(estimate: Estimate, entry: Entry) -> np.ndarray | None:
    """Distances to the interval's ends [2, 1], never negative; None without an interval that ends."""
    if estimate.value is None or estimate.lo is None or estimate.hi is None:
        return None
    ends = [[estimate.value - estimate.lo], [estimate.hi - estimate.value]]
    return np.maximum(np.array(ends) * entry.scale, 0)


def set_scale(ax: Any, values: list[float]) -> str:
    """Make x logarithmic if the values span much, so that a diverged row hides no other; what the label says of it."""
    if min(values) > 0 and max(values) > WIDE * min(values):
        ax.set_xscale("log")
        return " (log scale)"
    return ""


def list_front(tasks: list[Task]) -> tuple[list[str], list[dict[str, object]]]:
    """(columns, records) of pareto.csv: the headline of each row of an images task that has both axes of its front."""
    names = registry.headline("images")
    axes = registry.KINDS["images"].fronts[0]
    records: list[dict[str, object]] = []
    for task in (task for task in tasks if task.kind == "images"):
        for row in task.rows:
            values = {metric: row.estimate(metric).value for metric in names}
            if all(values[metric] is not None for metric in axes):
                shown = {name: None if value is None else float(value) for name, value in values.items()}
                records.append({"task": task.name, "row": row.name, **shown})
    return ["task", "row", *names], records
