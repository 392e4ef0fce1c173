"""A task's part on rows at equal forgetting: what `make strengths` measured in runs of their own, kept in git."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palinode.core import io
from palinode.metrics import registry
from palinode.report import figures
from palinode.report.averages import Estimate
from palinode.report.collect import Task
from palinode.report.tables import name_column, show, show_interval

FOLDER = Path("results/strengths")
FORGOT = "ua_training_prompts"
KEPT = ("accuracy_near", "integrity_near_judge", "integrity_far_judge")


def view(task: Task) -> dict[str, Any] | None:
    """What the template shows of a task that was compared; None of another."""
    path = task.root / FOLDER / f"{task.name}.json"
    if not path.exists():
        return None
    comparison = io.read_json(path)
    heads, rows = build_table(comparison)
    with draw_panels(comparison) as fig:
        svg = figures.inline_svg(fig, f"{task.name}-strengths", "What is kept against what is forgotten, by strength")
    return {"caption": caption(comparison), "heads": heads, "rows": rows, "figure": svg}


def list_kept(comparison: dict) -> list[str]:
    """The metrics of KEPT that a comparison has."""
    return [metric for metric in KEPT if metric in comparison["points"][0]]


def caption(comparison: dict) -> str:
    """Level, code and seeds of a comparison."""
    seeds = ", ".join(map(str, comparison["seeds"]))
    plural = "s" if len(comparison["seeds"]) > 1 else ""
    commit = comparison["commit"][:12]
    return f"At UA {comparison['level']:.0%} on training prompts (code of commit {commit}, seed{plural} {seeds})"


def build_table(comparison: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text. comparison: as `tools/strengths.py` writes it."""
    metrics = list_kept(comparison)
    titles = [name_column(registry.lookup(metric)) for metric in metrics]
    heads = ["row", "strengths run", "strength there", *titles, "P(keeps less than the best)"]
    return heads, [build_row(entry, metrics) for entry in comparison["matched"]]


def build_row(entry: dict, metrics: list[str]) -> list[str]:
    cells = [entry["row"], ", ".join(f"{strength:g}" for strength in entry["strengths"])]
    if "outside" in entry:
        return [*cells, entry["outside"], *["–"] * (len(metrics) + 1)]
    place = "{value:.2f} [{lo:.2f}, {hi:.2f}]".format(**entry["strength"]).replace("-", "−")
    if entry["reached"] < 1:
        place += f" (in {entry['reached']:.0%} of the replicates)"
    behind = "best" if "behind" not in entry else f"{entry['behind']:.0%}"
    return [*cells, place, *(show_kept(entry[metric], metric) for metric in metrics), behind]


def show_kept(item: dict, metric: str) -> str:
    entry = registry.lookup(metric)
    return f"{show(item['value'], entry)} {show_interval(Estimate(item['value'], item['lo'], item['hi']), entry)}"


@contextmanager
def draw_panels(comparison: dict) -> Iterator[Any]:
    """A panel a kept metric: one line a row over its strengths, the level marked."""
    rows = list(dict.fromkeys(point["row"] for point in comparison["points"]))
    metrics = list_kept(comparison)
    forgot = registry.lookup(FORGOT)
    with figures.figure(3.9 * len(metrics), 3.9, ncols=len(metrics), squeeze=False) as (fig, axes):
        for ax, entry in zip(axes.flat, map(registry.lookup, metrics), strict=True):
            for i, row in enumerate(rows):
                points = [point for point in comparison["points"] if point["row"] == row]
                across = [point[FORGOT] * forgot.scale for point in points]
                up = [point[entry.name] * entry.scale for point in points]
                ax.plot(across, up, **figures.choose_mark(i), markersize=5, linewidth=1.4, label=row)
            level = comparison["level"] * forgot.scale
            ax.axvline(level, color=figures.GREY, linewidth=0.7, linestyle=figures.DASHED, zorder=1)
            ax.set(xlabel=f"{forgot.title}, higher = unlearned", title=entry.title)
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False)
        yield fig
