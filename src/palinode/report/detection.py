"""The page's part on memorised prompts: how well each score finds them, at what cost, and where it errs."""

import csv
from pathlib import Path

import numpy as np

from palinode import io
from palinode.memorization import roc
from palinode.memorization.prompts import KINDS, Prompt
from palinode.report import images, plots

CELLS = {  # column -> group and statistic
    "AUC": ("all", "auc"),
    "AUC, verbatim": ("verbatim", "auc"),
    "AUC, template": ("template", "auc"),
    "AUC against controls": ("controls", "auc"),
    "AUC against ordinary": ("ordinary", "auc"),
    "TPR at FPR < 1 %": ("all", "tpr_below"),
    "TPR closest to 1 % FPR": ("all", "tpr_closest"),
}
HEADS = (*CELLS, "accuracy, other half", "passes a prompt")
GROUPS = {  # of the histograms: label -> kinds, colour
    "memorised": (("verbatim", "template"), plots.BLUE),
    "control": (("control",), plots.ORANGE),
    "ordinary": (("ordinary",), plots.GREY),
    "unlabelled": (("unlabelled",), plots.GREEN),
}
ACROSS, HARDEST = 3, 5


def views(bases: list[str], root: Path) -> list[dict]:
    """What the template shows of each base."""
    return [view(name, root / "models" / name / "detect") for name in bases]


def view(name: str, folder: Path) -> dict:
    metrics = io.read_json(folder / "metrics.json")
    asked, scores = roc.read_scores(folder / "scores.csv")
    entries = [entry for found in metrics["scores"].values()
               for entry in (*(found[group][key] for group, key in CELLS.values()), found["held_out"])]
    return {
        "name": name,
        "heads": HEADS,
        "counts": ", ".join(f"{count} {kind}" for kind, count in metrics["prompts"].items()),
        "settings": ", ".join(f"{key} {value}" for key, value in metrics["settings"].items()),
        "rows": [(score, cells(found)) for score, found in metrics["scores"].items()],
        "reasons": sorted({entry["reason"] for entry in entries if "reason" in entry}),
        "hardest": hardest(metrics["scores"], asked, scores),
        "figure": figure(name, asked, scores),
        "mitigation": mitigation(folder.parent / "mitigation"),
    }  # fmt: skip


def cells(found: dict) -> list[tuple[str, str] | None]:
    """One line of the table: (value, interval or details) under each of HEADS; None where there is no value."""
    line = [estimate(found[group][key]) for group, key in CELLS.values()]
    held, jvps = found["held_out"], found["jvps"]
    details = "" if "reason" in held else ", ".join(
        f"{name} {held[key]['value']:.2f} of {held[key]['n']}" for name, key in (("TPR", "tpr"), ("FPR", "fpr"))
    )
    line.append((f"{held['accuracy']:.3f}", details) if details else None)
    return [*line, (f"{found['passes']}", f"{jvps} with a derivative" if jvps else "")]


def estimate(entry: dict) -> tuple[str, str] | None:
    if entry["value"] is None:
        return None
    return f"{entry['value']:.3f}", "" if entry["lo"] is None else f"{entry['lo']:.3f} to {entry['hi']:.3f}"


def mitigation(folder: Path) -> dict:
    """What moving the flagged prompts' states did: a line a kind of prompts, the pictures, the words that mattered."""
    found = io.read_json(folder / "metrics.json")
    if "reason" in found:
        return {"reason": found["reason"]}
    rows = []
    for kind, it in found["kinds"].items():
        cells = [(f"{it['flagged']} of {it['prompts']}", "")]
        if it["flagged"]:
            cells += [(f"{norm:.2f}", "") for norm in it["norm"]] + [(f"{it['below']} of {it['flagged']}", "")]
            cells += [(f"{100 * copies['value']:.1f} %", f"{100 * copies['lo']:.1f} to {100 * copies['hi']:.1f}")
                      for copies in it["copies"]]  # fmt: skip
        rows.append((kind, cells + [("–", "")] * (6 - len(cells))))
    with open(folder / "prompts.csv", encoding="utf-8", newline="") as handle:
        listed = [(row["kind"], [(word, float(value)) for word, _, value in (
            part.rpartition(":") for part in row["words"].split())]) for row in csv.DictReader(handle)]
    sheet = folder / "pictures.png"
    return {
        "target": found["target"],
        "rows": rows,
        "words": [it for it in listed if KINDS[it[0]] is not False],
        "sheet": images.data_uri(sheet.read_bytes()) if sheet.exists() else None,
    }


def hardest(found: dict, asked: list[Prompt], scores: dict[str, np.ndarray]) -> dict | None:
    """Of the score with the highest AUC: the memorised prompts it ranks lowest, and the others it ranks highest."""
    areas = {name: it["all"]["auc"]["value"] for name, it in found.items() if it["all"]["auc"]["value"] is not None}
    if not areas:
        return None
    best = max(areas, key=areas.get)
    order = np.argsort(scores[best], kind="stable").tolist()

    def first(ranked: list[int], memorised: bool) -> list[str]:
        chosen = [i for i in ranked if KINDS[asked[i].kind] is memorised][:HARDEST]
        return [f"{asked[i].text} ({asked[i].kind}, {scores[best][i]:.3g})" for i in chosen]

    return {"score": best, "low": first(order, True), "high": first(order[::-1], False)}


def figure(name: str, asked: list[Prompt], scores: dict[str, np.ndarray]) -> str:
    """ROC curves, then a histogram of each score with one outline a kind of prompts -> inline SVG."""
    index, positive = roc.labelled(asked, "all")
    down = -(-(len(scores) + 1) // ACROSS)
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.GREY)
    with plots.figure(10.4, 2.5 * down, nrows=down, ncols=ACROSS, squeeze=False) as (fig, axes):
        first, *others = axes.flat
        for i, (score, values) in enumerate(scores.items()):
            if not roc.missing(positive):
                (fpr,), (tpr,) = roc.roc(values[index], positive, np.ones((1, len(index)), int))
                style = ("-", "--", ":")[i // len(colours) % 3]
                first.plot(fpr, tpr, style, color=colours[i % len(colours)], linewidth=1.3, label=score)
        first.set_title("ROC: TPR by FPR")
        first.axvline(roc.FPR, color=plots.GREY, linewidth=0.6)
        if first.lines[1:]:
            first.legend(frameon=False, fontsize=6.5, loc="lower right")
        for ax, (score, values) in zip(others, scores.items(), strict=False):
            bins = np.histogram_bin_edges(values, 24)
            for label, (kinds, colour) in GROUPS.items():
                some = np.array([prompt.kind in kinds for prompt in asked])
                if some.any():
                    share = np.full(int(some.sum()), 1 / some.sum())
                    ax.hist(values[some], bins, weights=share, histtype="step", color=colour, label=label)
            ax.set_title(score)
        others[0].legend(frameon=False, fontsize=7)
        for ax in others[len(scores) :]:
            ax.axis("off")
        for ax in axes.flat:
            ax.tick_params(labelsize=8)
        return plots.inline_svg(fig, f"{name}-detection", "ROC curves and histograms of the scores of prompts")
