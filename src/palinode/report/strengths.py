"""A task's part on rows at equal forgetting: what `make strengths` found in runs of their own, kept in git."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palinode import io
from palinode.report import plots
from palinode.report.collect import Task

FOLDER = Path("results/strengths")
FORGOT = "ua_t0"
KEPT = {"right_near": "Near things right", "integrity_near_judge": "Integrity of near things (judge)",
        "integrity_far_judge": "Integrity of far things (judge)"}  # fmt: skip
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, "#8d5bc1", "#b03a5b", "#7a6a2f", plots.GREY, "#5468b4")
MARKERS = "osD^v"


def view(task: Task) -> dict | None:
    """What the template shows of a task that was compared; None of another."""
    path = task.root / FOLDER / f"{task.name}.json"
    if not path.exists():
        return None
    found = io.read_json(path)
    heads, rows = table(found)
    with panels(found) as fig:
        svg = plots.inline_svg(fig, f"{task.name}-strengths", "What is kept against what is forgotten, by strength")
    return {"caption": caption(found), "heads": heads, "rows": rows, "figure": svg}


def kept(found: dict) -> dict[str, str]:
    """The metrics of KEPT that a comparison has, with their labels."""
    return {metric: label for metric, label in KEPT.items() if metric in found["points"][0]}


def caption(found: dict) -> str:
    """Level, code and seeds of a comparison."""
    seeds = ", ".join(map(str, found["seeds"]))
    return (f"At UA {found['level']:.0%} on T0 (code of commit {found['commit'][:12]}, "
            f"seed{'s' * (len(found['seeds']) > 1)} {seeds})")  # fmt: skip


def table(found: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text. found: as `tools/strengths.py` writes it."""

    def shown(item: dict) -> str:
        return "{value:.2f} [{lo:.2f}, {hi:.2f}]".format(**item).replace("-", "−")

    metrics, rows = kept(found), []
    for entry in found["matched"]:
        cells = [entry["row"], ", ".join(f"{strength:g}" for strength in entry["strengths"])]
        if "outside" in entry:
            cells += [entry["outside"], *["–"] * (len(metrics) + 1)]
        else:
            there = shown(entry["strength"])
            if entry["reached"] < 1:
                there += f" (in {entry['reached']:.0%} of the replicates)"
            behind = "best" if "behind" not in entry else f"{entry['behind']:.0%}"
            cells += [there, *(shown(entry[metric]) for metric in metrics), behind]
        rows.append(cells)
    return ["row", "strengths run", "strength there", *metrics.values(), "behind the best"], rows


@contextmanager
def panels(found: dict) -> Iterator[object]:
    """A panel a kept metric: one line a row over its strengths, the level marked."""
    rows = list(dict.fromkeys(point["row"] for point in found["points"]))
    shown = kept(found)
    with plots.figure(3.9 * len(shown), 3.9, ncols=len(shown), squeeze=False) as (fig, axes):
        for ax, (metric, label) in zip(axes.flat, shown.items(), strict=True):
            for i, row in enumerate(rows):
                line = [(point[FORGOT], point[metric]) for point in found["points"] if point["row"] == row]
                ax.plot(*zip(*line, strict=True), color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)],
                        markersize=5, linewidth=1.4, label=row)  # fmt: skip
            ax.axvline(found["level"], color=plots.GREY, linewidth=0.7, linestyle=(0, (4, 4)), zorder=1)
            ax.set(xlabel="UA on given prompts, higher = unlearned", title=label)
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False)
        yield fig
