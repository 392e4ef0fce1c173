"""How well scores separate memorized prompts from others: ROC, AUC, TPR at 1 % FPR, and thresholds on held-out prompts.

Two conventions of the TPR at 1 % FPR are in use. They differ where 1 % is a handful of prompts. One takes the last ROC
point with FPR < 1 % (Wen et al., ICLR 2024, arXiv 2407.21720), the other the first point whose FPR is closest to 1 %
(Jeon et al., ICML 2025, arXiv 2412.04140, and others).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palinode.core import estimate, seeds
from palinode.core.estimate import Metric
from palinode.core.io import read_csv
from palinode.data.prompt_lists import KINDS, Prompt
from palinode.memorization.detectors import Cost

FPR = 0.01
GROUPS = {  # kinds of prompts that are told apart
    "all": ("verbatim", "template", "partial", "control", "ordinary", "detailed"),
    "verbatim": ("verbatim", "ordinary"),
    "template": ("template", "ordinary"),
    "partial": ("partial", "ordinary"),
    "ordinary": ("verbatim", "template", "partial", "ordinary"),
    "controls": ("verbatim", "template", "partial", "control"),
    "detailed": ("verbatim", "template", "partial", "detailed"),
}
STREAMS = ("memorised", "other")  # bootstrap weights of positives and negatives; the names feed seeds


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


def labelled(prompts: Sequence[Prompt], group: str) -> tuple[np.ndarray, np.ndarray]:
    """(index, positive) of the prompts in a group of GROUPS; positive: memorized."""
    chosen = [i for i, prompt in enumerate(prompts) if prompt.kind in GROUPS[group]]
    return np.array(chosen, int), np.array([bool(KINDS[prompts[i].kind]) for i in chosen], bool)


def table(
    scores: Mapping[str, np.ndarray], prompts: Sequence[Prompt], costs: Mapping[str, Cost], generations: int
) -> dict[str, Any]:
    """The stage's metrics.json: {"prompts": count of each kind, "scores": {score: `evaluate`, nfe, jvps}}.

    nfe: samples sent forward through the network for one prompt; jvps: those of them with a derivative.
    """
    evaluated = {}
    for name, values in scores.items():
        cost = {"nfe": 2 * costs[name].pairs * generations, "jvps": 2 * costs[name].jvps * generations}
        evaluated[name] = evaluate(values, prompts) | cost
    return {"prompts": dict(Counter(prompt.kind for prompt in prompts)), "scores": evaluated}


def read_scores(path: Path) -> tuple[list[Prompt], dict[str, np.ndarray]]:
    """(prompts, {score: float64 [prompts]}) of a scores.csv."""
    prompts: dict[Prompt, None] = {}
    scores: dict[str, list[float]] = {}
    for line in read_csv(path):
        prompts[Prompt(line["prompt"], line["kind"])] = None
        scores.setdefault(line["detector"], []).append(float(line["score"]))
    return list(prompts), {name: np.array(values) for name, values in scores.items()}


def evaluate(scores: np.ndarray, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """{group of GROUPS: {statistic: entry of metrics.json}, "held_out": ...} of one score, [prompts].

    Intervals: bootstrap of positives and negatives, each by themselves, with the same draws for every score.
    """
    groups = {}
    for group in GROUPS:
        index, positive = labelled(prompts, group)
        metrics = estimate_statistics(scores[index], positive)
        groups[group] = {name: estimate.to_entry(metric) for name, metric in metrics.items()}
    return groups | {"held_out": try_threshold(scores, prompts)}


def estimate_statistics(scores: np.ndarray, positive: np.ndarray) -> dict[str, Metric]:
    """AUC and both TPRs with bootstrap intervals; absent when one of the classes is."""
    if reason := missing(positive):
        return {name: estimate.absent(reason) for name in STATISTICS}
    weights = np.zeros((estimate.REPLICATES, len(scores)), int)
    for members, stream in zip((positive, ~positive), STREAMS, strict=True):
        weights[:, members] = estimate.bootstrap_counts(int(members.sum()), estimate.REPLICATES, stream)
    curve = roc(scores, positive, np.ones((1, len(scores)), int))
    curves = roc(scores, positive, weights)
    return {
        name: estimate.from_replicates(float(statistic(*curve)[0]), statistic(*curves), len(scores))
        for name, statistic in STATISTICS.items()
    }


def try_threshold(scores: np.ndarray, prompts: Sequence[Prompt]) -> dict[str, Any]:
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
    threshold = choose_threshold(scores[~second], positive[~second])
    flagged = scores[second] >= threshold
    hits = flagged[positive[second]]
    false_alarms = flagged[~positive[second]]
    tpr, fpr = (estimate.share(int(flags.sum()), len(flags)) for flags in (hits, false_alarms))
    return {"threshold": threshold, "accuracy": 1 - (fpr["value"] + 1 - tpr["value"]) / 2, "tpr": tpr, "fpr": fpr}


def choose_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold with the highest 1 - (FPR + FNR) / 2, midway between two scores; the highest of several."""
    (fpr,), (tpr,) = roc(scores, positive, np.ones((1, len(scores)), int))
    best = int((tpr - fpr)[1:].argmax())
    return float(np.unique(scores)[::-1][best : best + 2].mean())


def missing(positive: np.ndarray) -> str | None:
    """Why nothing can be told apart, or None."""
    if not positive.any():
        return "no prompt is known to be memorized"
    return "no prompt is known not to be memorized" if positive.all() else None
