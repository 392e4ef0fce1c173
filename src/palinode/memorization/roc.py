"""How well scores separate memorised prompts from others: ROC, AUC, TPR at 1 % FPR, and thresholds on held-out prompts.

Two conventions of the TPR at 1 % FPR are in use, and differ where 1 % is a handful of prompts: that of the last ROC
point with FPR < 1 % (Wen et al.) and that of the first point whose FPR is closest to 1 % (Jeon et al. and others).
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from palinode import seeds
from palinode.memorization.detectors import Cost
from palinode.memorization.prompts import KINDS, Prompt
from palinode.metrics import record

FPR = 0.01
GROUPS = {  # kinds of prompts that are told apart
    "all": ("verbatim", "template", "control", "ordinary"),
    "verbatim": ("verbatim", "control", "ordinary"),
    "template": ("template", "control", "ordinary"),
    "controls": ("verbatim", "template", "control"),
    "ordinary": ("verbatim", "template", "ordinary"),
}


def roc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(FPR, TPR) at every threshold, [R, K + 1] from (0, 0) to (1, 1); equal scores share a point.

    scores: [n], high = positive; positive: bool [n]; weights: how often replicate r counts each, [R, n].
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))

    def rate(of: np.ndarray) -> np.ndarray:
        counted = np.cumsum((weights * of)[:, order], axis=1)[:, ends]
        return np.pad(counted / counted[:, -1:], ((0, 0), (1, 0)))

    return rate(~positive), rate(positive)


def auc(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """Area under each curve, [R]: the chance that a positive scores higher than a negative, ties counted half."""
    return np.trapezoid(tpr, fpr, axis=1)


def tpr_below(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """TPR at the last point with FPR < 1 %, [R]."""
    return _take(tpr, (fpr < FPR).sum(axis=1) - 1)


def tpr_closest(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """TPR at the point with FPR closest to 1 %, the first of several, [R]."""
    return _take(tpr, np.abs(fpr - FPR).argmin(axis=1))


STATISTICS = {"auc": auc, "tpr_below": tpr_below, "tpr_closest": tpr_closest}


def _take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, index[:, None], axis=1)[:, 0]


def labelled(prompts: list[Prompt], group: str) -> tuple[np.ndarray, np.ndarray]:
    """(index, positive) of the prompts in a group of GROUPS; positive: memorised."""
    chosen = [i for i, prompt in enumerate(prompts) if prompt.kind in GROUPS[group]]
    return np.array(chosen, int), np.array([bool(KINDS[prompts[i].kind]) for i in chosen], bool)


def table(scores: dict[str, np.ndarray], prompts: list[Prompt], costs: dict[str, Cost], generations: int) -> dict:
    """The stage's metrics.json: {"prompts": count of each kind, "scores": {score: `evaluate`, passes, jvps}}.

    passes: samples sent forward through the network for one prompt; jvps: those of them with a derivative.
    """
    found = {}
    for name, values in scores.items():
        cost = {"passes": 2 * costs[name].pairs * generations, "jvps": 2 * costs[name].jvps * generations}
        found[name] = evaluate(values, prompts) | cost
    return {"prompts": dict(Counter(prompt.kind for prompt in prompts)), "scores": found}


def read_scores(path: Path) -> tuple[list[Prompt], dict[str, np.ndarray]]:
    """(prompts, {score: float64 [prompts]}) of a scores.csv."""
    asked: dict[Prompt, None] = {}
    scores: dict[str, list[float]] = {}
    with open(path, encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            asked[Prompt(row["prompt"], row["kind"])] = None
            scores.setdefault(row["detector"], []).append(float(row["score"]))
    return list(asked), {name: np.array(values) for name, values in scores.items()}


def evaluate(scores: np.ndarray, prompts: list[Prompt]) -> dict:
    """{group of GROUPS: {statistic: entry of metrics.json}, "held_out": ...} of one score, [prompts].

    Intervals: bootstrap of positives and negatives, each by themselves, with the same draws for every score.
    """
    found = {}
    for group in GROUPS:
        index, positive = labelled(prompts, group)
        found[group] = {name: record.to_entry(metric) for name, metric in statistics(scores[index], positive).items()}
    return found | {"held_out": held_out(scores, prompts)}


def statistics(scores: np.ndarray, positive: np.ndarray) -> dict[str, record.Metric]:
    """AUC and both TPRs with bootstrap intervals; absent when one of the classes is."""
    reason = missing(positive)
    if reason:
        return {name: record.absent(reason, unit="fraction", direction="up") for name in STATISTICS}
    weights = np.zeros((record.REPLICATES, len(scores)), int)
    for members, stream in ((positive, "memorised"), (~positive, "other")):
        weights[:, members] = record.bootstrap_counts(int(members.sum()), record.REPLICATES, stream)
    one, drawn = roc(scores, positive, np.ones((1, len(scores)), int)), roc(scores, positive, weights)
    common = {"n": len(scores), "unit": "fraction", "direction": "up"}
    return {name: record.from_replicates(float(statistic(*one)[0]), statistic(*drawn), **common)
            for name, statistic in STATISTICS.items()}  # fmt: skip


def held_out(scores: np.ndarray, prompts: list[Prompt]) -> dict:
    """A threshold chosen on one half of the prompts, and what it does on the other.

    {threshold, accuracy, tpr, fpr}, the last two with Wilson's intervals, or {reason}. The halves go by a hash of the
    prompt. The threshold maximises 1 - (FPR + FNR) / 2, which is what accuracy means here.
    """
    index, positive = labelled(prompts, "all")
    second = np.array([seeds.derive("half", prompts[i].text) % 2 for i in index], bool)
    for half in (~second, second):
        if reason := missing(positive[half]):
            return {"reason": f"{reason} in one half of the prompts"}
    scores = scores[index]
    threshold = choose(scores[~second], positive[~second])
    flagged = scores[second] >= threshold
    true, false = flagged[positive[second]], flagged[~positive[second]]
    tpr, fpr = (record.share(int(some.sum()), len(some)) for some in (true, false))
    return {"threshold": threshold, "accuracy": 1 - (fpr["value"] + 1 - tpr["value"]) / 2, "tpr": tpr, "fpr": fpr}


def choose(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold with the highest 1 - (FPR + FNR) / 2, midway between two scores; the highest of several."""
    (fpr,), (tpr,) = roc(scores, positive, np.ones((1, len(scores)), int))
    best = int((tpr - fpr)[1:].argmax())
    return float(np.unique(scores)[::-1][best : best + 2].mean())


def missing(positive: np.ndarray) -> str | None:
    """Why nothing can be told apart, or None."""
    if not positive.any():
        return "no prompt is known to be memorised"
    return "no prompt is known not to be memorised" if positive.all() else None
