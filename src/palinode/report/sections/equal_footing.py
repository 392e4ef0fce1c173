"""A task's part on rows on an equal footing: what `make strengths` measured in runs of their own, kept in git."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palinode.core import io
from palinode.metrics import registry
from palinode.metrics.registry import Entry
from palinode.report import figures
from palinode.report.averages import Estimate
from palinode.report.collect import Task
from palinode.report.tables import name_column, show, show_interval

FOLDER = Path("results/strengths")
LOST = "quality_lost"  # share of the base's Inception Score that a row has lost; made by the comparison itself
LOST_ENTRY = registry.share(LOST, "Inception Score lost", "down")
PAPER = "the paper's rows"


@dataclass(frozen=True)
class Question:
    """What rows are held equal in, and compared by.

    reached: the metric whose rise to a level is where a row is looked at; reason: for that level, after its number;
    kept: what is compared there, `ranked` among them; best: how the row is described that is first by `ranked`.
    """

    title: str
    reached: str
    reason: str
    kept: tuple[str, ...]
    ranked: str
    best: str


@dataclass(frozen=True)
class Front:
    """The figure of a kind: a panel for each metric of `up`, over `across`."""

    across: str
    up: tuple[str, ...]


CONCEPT_KEPT = (
    "accuracy_near",
    "integrity_near_judge",
    "integrity_near_efficientnet_lite0",
    "integrity_far_judge",
)
QUESTIONS = {
    "concept": {
        "forgetting": Question(
            title="At equal forgetting",
            reached="ua_training_prompts",
            reason="",
            kept=CONCEPT_KEPT,
            ranked="integrity_near_judge",
            best="with the highest integrity of near things, by the judge,",
        )
    },
    "images": {
        "forgetting": Question(
            title="At equal forgetting",
            reached="nll_forget",
            reason=", as of the oracle",
            kept=("inception_score_judge", "integrity_judge"),
            ranked="inception_score_judge",
            best="with the highest Inception Score",
        ),
        "quality": Question(
            title="At equal quality",
            reached=LOST,
            reason=", of the base's",
            kept=("nll_forget", "eps_error_forget"),
            ranked="nll_forget",
            best="that has forgotten most",
        ),
    },
}
FRONTS = {
    "concept": Front("ua_training_prompts", CONCEPT_KEPT),
    "images": Front("nll_forget", ("inception_score_judge",)),
}


def view(task: Task) -> dict[str, Any] | None:
    """What the template shows of a task that was compared; None of another."""
    path = task.root / FOLDER / f"{task.name}.json"
    if not path.exists():
        return None
    comparison = io.read_json(path)
    parts = []
    for part in comparison["comparisons"]:
        question = QUESTIONS[comparison["kind"]][part["question"]]
        heads, rows = build_table(comparison, part)
        caption = describe(comparison, part)
        parts.append({"title": question.title, "caption": caption, "heads": heads, "rows": rows, "best": question.best})
    with draw_panels(comparison) as fig:
        svg = figures.inline_svg(fig, f"{task.name}-strengths", "What is kept against what is forgotten, by strength")
    return {"parts": parts, "figure": svg}


def look_up(metric: str) -> Entry:
    """The entry of a metric that a comparison has."""
    return LOST_ENTRY if metric == LOST else registry.lookup(metric)


def list_kept(comparison: dict, part: dict) -> list[str]:
    """The metrics that a part of the comparison could compare."""
    question = QUESTIONS[comparison["kind"]][part["question"]]
    return [metric for metric in question.kept if metric in comparison["points"][0]]


def describe(comparison: dict, part: dict) -> str:
    """Level, code and seeds of a part of a comparison."""
    question = QUESTIONS[comparison["kind"]][part["question"]]
    seeds = ", ".join(map(str, comparison["seeds"]))
    plural = "s" if len(comparison["seeds"]) > 1 else ""
    entry = look_up(question.reached)
    level = f"{show(part['level'], entry)} {entry.shown_unit}".strip()
    code = f"code of commit {comparison['commit'][:12]}"
    return f"Where {entry.label} is {level}{question.reason} ({code}, seed{plural} {seeds})"


def build_table(comparison: dict, part: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text. comparison: as `tools/strengths.py` writes it; part: one of its `comparisons`."""
    metrics = list_kept(comparison, part)
    titles = [name_column(look_up(metric)) for metric in metrics]
    heads = ["row", "strengths run", "strength there", *titles, "P(behind the best)"]
    return heads, [build_row(entry, metrics) for entry in part["matched"]]


def build_row(entry: dict, metrics: list[str]) -> list[str]:
    cells = [entry["row"], ", ".join(f"{strength:g}" for strength in entry["strengths"])]
    if "outside" in entry:
        return [*cells, entry["outside"], *["–"] * (len(metrics) + 1)]
    place = "{value:.2f} [{lo:.2f}, {hi:.2f}]".format(**entry["strength"]).replace("-", "−")
    if entry["reached"] < 1:
        place += f" (in {entry['reached']:.0%} of the replicates)"
    behind = "best"
    if "behind" in entry:
        behind = "–" if entry["behind"] is None else f"{entry['behind']:.0%}"
    return [*cells, place, *(show_kept(entry[metric], metric) for metric in metrics), behind]


def show_kept(item: dict, metric: str) -> str:
    entry = look_up(metric)
    return f"{show(item['value'], entry)} {show_interval(Estimate(item['value'], item['lo'], item['hi']), entry)}"


@contextmanager
def draw_panels(comparison: dict) -> Iterator[Any]:
    """A panel a metric, one line a row over its strengths, levels marked; the paper's points in a panel beside."""
    front = FRONTS[comparison["kind"]]
    shown = [metric for metric in front.up if metric in comparison["points"][0]]
    count = len(shown) + bool(comparison.get("paper"))
    across = look_up(front.across)
    with figures.figure(3.9 * count, 3.9, ncols=count, squeeze=False) as (fig, axes):
        for ax, entry in zip(axes.flat, map(look_up, shown), strict=False):
            draw_lines(ax, comparison["points"], across, entry)
            draw_levels(ax, comparison, across, entry)
            ax.set(xlabel=f"{across.title}, higher = unlearned", title=entry.title)
        if comparison.get("paper"):
            draw_paper(axes.flat[-1], comparison["paper"], across, look_up(shown[0]))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
        yield fig


def draw_lines(ax: Any, points: list[dict], across: Entry, up: Entry) -> None:
    for i, row in enumerate(dict.fromkeys(point["row"] for point in points)):
        own = [point for point in points if point["row"] == row]
        x = [point[across.name] * across.scale for point in own]
        y = [point[up.name] * up.scale for point in own]
        ax.plot(x, y, **figures.choose_mark(i), markersize=5, linewidth=1.4, label=row)


def draw_levels(ax: Any, comparison: dict, across: Entry, up: Entry) -> None:
    """Where rows are compared, as far as the panel's axes show it."""
    line = {"color": figures.GREY, "linewidth": 0.7, "linestyle": figures.DASHED, "zorder": 1}
    for part in comparison["comparisons"]:
        reached = QUESTIONS[comparison["kind"]][part["question"]].reached
        if reached == across.name:
            ax.axvline(part["level"] * across.scale, **line)
        if reached == LOST:
            ax.axhline((1 - part["level"]) * comparison["base"][up.name] * up.scale, **line)


def draw_paper(ax: Any, points: list[dict], across: Entry, up: Entry) -> None:
    """The paper's rows, each with its name: axes of their own, since networks and sizes are others."""
    for i, point in enumerate(points):
        ax.plot(point["across"], point["up"], **figures.choose_mark(i), markersize=5, linestyle="none")
        ax.annotate(point["row"], (point["across"], point["up"]), textcoords="offset points", xytext=(4, 3), fontsize=7)
    ax.set(xlabel=across.title, title=f"{up.label.partition(' (')[0]}, {PAPER}")
    ax.margins(0.15)
