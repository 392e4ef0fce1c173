"""The page's part on memorized prompts: how well each score detects them, at what cost, and where it errs."""

from pathlib import Path
from typing import Any

import numpy as np

from palinode.core import io
from palinode.data.prompt_lists import KINDS, Prompt
from palinode.memorization import roc
from palinode.report import figures, pictures

CELLS = {  # column -> group and statistic
    "AUC": ("all", "auc"),
    "AUC, verbatim": ("verbatim", "auc"),
    "TPR at FPR < 1 %, verbatim": ("verbatim", "tpr_below"),
    "AUC, template": ("template", "auc"),
    "AUC, partly memorized": ("partial", "auc"),
    "AUC against ordinary": ("ordinary", "auc"),
    "AUC against controls": ("controls", "auc"),
    "AUC against detailed": ("detailed", "auc"),
    "TPR at FPR < 1 %": ("all", "tpr_below"),
    "TPR closest to 1 % FPR": ("all", "tpr_closest"),
}
HEADS = ("accuracy, other half", "NFE per prompt")  # after those of CELLS
GROUPS = {  # of the histograms: label -> kinds, colour
    "memorized": (("verbatim", "template"), figures.BLUE),
    "partly memorized": (("partial",), figures.COLOURS[3]),
    "control": (("control",), figures.ORANGE),
    "ordinary": (("ordinary",), figures.GREY),
    "detailed": (("detailed",), figures.COLOURS[4]),
    "unlabelled": (("unlabelled",), figures.GREEN),
}
COLOURS = (figures.BLUE, figures.ORANGE, figures.GREEN, figures.GREY)
STYLES = ("-", "--", ":")
ACROSS = 3  # panels beside one another
HARDEST = 5  # prompts of either kind that are listed
BINS = 24
Shown = tuple[str, str]  # a value and its interval, or details


def views(bases: list[str], root: Path) -> list[dict[str, Any]]:
    """What the template shows of each base."""
    return [view(name, root / "models" / name / "detect") for name in bases]


def view(name: str, folder: Path) -> dict[str, Any]:
    metrics = io.read_json(folder / "metrics.json")
    prompts, scores = roc.read_scores(folder / "scores.csv")
    columns = list_columns(metrics["scores"])
    return {
        "name": name,
        "heads": (*columns, *HEADS),
        "counts": ", ".join(f"{count} {kind}" for kind, count in metrics["prompts"].items()),
        "settings": ", ".join(f"{key} {value}" for key, value in metrics["settings"].items()),
        "rows": [(score, build_row(measured, columns)) for score, measured in metrics["scores"].items()],
        "reasons": list_reasons(metrics["scores"]),
        "hardest": list_hardest(metrics["scores"], prompts, scores),
        "figure": draw(name, prompts, scores),
        "mitigation": view_mitigation(folder.parent / "mitigation"),
    }


def list_columns(measured: dict[str, dict]) -> list[str]:
    """The labels of CELLS that some score has a value for: a base may have no prompts of some kinds. Else all."""

    def is_known(label: str) -> bool:
        group, statistic = CELLS[label]
        return any(score[group][statistic]["value"] is not None for score in measured.values())

    return [label for label in CELLS if is_known(label)] or list(CELLS)


def list_reasons(measured: dict[str, dict]) -> list[str]:
    """Why statistics are absent, each reason once."""
    entries = []
    columns = list_columns(measured)
    for score in measured.values():
        entries += [score[CELLS[label][0]][CELLS[label][1]] for label in columns]
        entries.append(score["held_out"])
    return sorted({entry["reason"] for entry in entries if "reason" in entry})


def build_row(score: dict, columns: list[str]) -> list[Shown | None]:
    """One line of the table, an entry under each of the columns and of HEADS; None where there is no value."""
    line = [show_statistic(score[CELLS[label][0]][CELLS[label][1]]) for label in columns]
    jvps = f"{score['jvps']} with a derivative" if score["jvps"] else ""
    return [*line, show_accuracy(score["held_out"]), (f"{score['nfe']}", jvps)]


def show_statistic(entry: dict) -> Shown | None:
    if entry["value"] is None:
        return None
    return f"{entry['value']:.3f}", "" if entry["lo"] is None else f"{entry['lo']:.3f} to {entry['hi']:.3f}"


def show_accuracy(held: dict) -> Shown | None:
    """The accuracy on the held-out half of the prompts, with both rates."""
    if "reason" in held:
        return None
    rates = (("TPR", held["tpr"]), ("FPR", held["fpr"]))
    return f"{held['accuracy']:.3f}", ", ".join(f"{name} {rate['value']:.2f} of {rate['n']}" for name, rate in rates)


def view_mitigation(folder: Path) -> dict[str, Any]:
    """What moving the flagged prompts' states did: a line a kind of prompts, the pictures, the words that mattered."""
    metrics = io.read_json(folder / "metrics.json")
    if "reason" in metrics:
        return {"reason": metrics["reason"]}
    records = io.read_csv(folder / "prompts.csv")
    sheet = folder / "pictures.png"
    return {
        "target": metrics["target"],
        "rows": [(kind, build_mitigated(entry)) for kind, entry in metrics["kinds"].items()],
        "words": [
            (record["kind"], split_words(record["words"])) for record in records if KINDS[record["kind"]] is not False
        ],
        "sheet": pictures.data_uri(sheet.read_bytes()) if sheet.exists() else None,
    }


def build_mitigated(entry: dict) -> list[Shown]:
    """One line of the table on mitigation: flagged, norms, prompts below the threshold, copies, things seen."""
    cells = [(f"{entry['flagged']} of {entry['prompts']}", "")]
    if entry["flagged"]:
        cells += [(f"{norm:.2f}", "") for norm in entry["norm"]]
        cells.append((f"{entry['below']} of {entry['flagged']}", ""))
        for what in ("copies", "things"):
            shares = [(f"{100 * v['value']:.1f} %", f"{100 * v['lo']:.1f} to {100 * v['hi']:.1f}") for v in entry[what]]
            cells += shares or [("–", "")] * 2
    return cells + [("–", "")] * (8 - len(cells))


def split_words(text: str) -> list[tuple[str, float]]:
    """The words of a prompt with their shares, from `word:share word:share`."""
    parts = [part.rpartition(":") for part in text.split()]
    return [(word, float(share)) for word, _, share in parts]


def list_hardest(measured: dict[str, dict], prompts: list[Prompt], scores: dict[str, np.ndarray]) -> dict | None:
    """Of the score with the highest AUC: the memorized prompts it ranks lowest, and the others it ranks highest."""
    areas = {name: score["all"]["auc"]["value"] for name, score in measured.items()}
    areas = {name: area for name, area in areas.items() if area is not None}
    if not areas:
        return None
    best = max(areas, key=lambda name: areas[name])
    order = np.argsort(scores[best], kind="stable").tolist()

    def first(ranked: list[int], memorized: bool) -> list[str]:
        chosen = [i for i in ranked if KINDS[prompts[i].kind] is memorized][:HARDEST]
        return [f"{prompts[i].text} ({prompts[i].kind}, {scores[best][i]:.3g})" for i in chosen]

    return {"score": best, "low": first(order, True), "high": first(order[::-1], False)}


def draw(name: str, prompts: list[Prompt], scores: dict[str, np.ndarray]) -> str:
    """ROC curves, then a histogram of each score with one outline a kind of prompts -> inline SVG."""
    down = -(-(len(scores) + 1) // ACROSS)
    with figures.figure(10.4, 2.5 * down, nrows=down, ncols=ACROSS, squeeze=False) as (fig, axes):
        first, *others = axes.flat
        draw_roc(first, prompts, scores)
        for ax, (score, values) in zip(others, scores.items(), strict=False):
            draw_histogram(ax, prompts, score, values)
        others[0].legend(frameon=False, fontsize=7)
        for ax in others[len(scores) :]:
            ax.axis("off")
        for ax in axes.flat:
            ax.tick_params(labelsize=8)
        return figures.inline_svg(fig, f"{name}-detection", "ROC curves and histograms of the scores of prompts")


def draw_roc(ax: Any, prompts: list[Prompt], scores: dict[str, np.ndarray]) -> None:
    index, positive = roc.labelled(prompts, "all")
    if not roc.missing(positive):
        for i, (score, values) in enumerate(scores.items()):
            (fpr,), (tpr,) = roc.roc(values[index], positive, np.ones((1, len(index)), int))
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            ax.plot(fpr, tpr, style, color=COLOURS[i % len(COLOURS)], linewidth=1.3, label=score)
        ax.legend(frameon=False, fontsize=6.5, loc="lower right")
    ax.set_title("ROC: TPR by FPR")
    ax.axvline(roc.FPR, color=figures.GREY, linewidth=0.6)


def draw_histogram(ax: Any, prompts: list[Prompt], score: str, values: np.ndarray) -> None:
    bins = np.histogram_bin_edges(values, BINS)
    for label, (kinds, colour) in GROUPS.items():
        members = np.array([prompt.kind in kinds for prompt in prompts])
        if members.any():
            share = np.full(int(members.sum()), 1 / members.sum())
            ax.hist(values[members], bins, weights=share, histtype="step", color=colour, label=label)
    ax.set_title(score)
