"""The gate between a base model and everything unlearned from it."""

import numpy as np

from palinode.judge import Judge
from palinode.metrics import forgetting, quality
from palinode.metrics.features import JudgeBackbone


def measure(images: np.ndarray, arrays: dict[str, np.ndarray], hit_distance: float, judge: Judge) -> dict:
    """The base model's hit rate and its FID (judge features), with the real-vs-real FID as its scale.

    images: samples, uint8 [N, H, W, C]; arrays: retain, forget, reference. Hits are left out of the FID.
    """
    hits = forgetting.hits(images, arrays["forget"], hit_distance)
    backbone = JudgeBackbone(judge)
    reference = backbone.features(arrays["reference"])
    scores = {
        name: quality.fid(backbone.features(some), reference, replicates=2).value
        for name, some in (("fid_judge", images[~hits]), ("fid_judge_real", arrays["retain"][: (~hits).sum()]))
    }
    return {"samples": len(images), "hits": int(hits.sum()), "hit_rate": float(hits.mean())} | scores


def problem(values: dict, limits) -> str | None:
    """Why the base model is refused, or None."""
    low, high = limits.hit_rate
    if not low <= values["hit_rate"] <= high:
        return (
            f"the forget set appears in {values['hit_rate']:.2%} of {values['samples']} samples, outside {low:.2%} to "
            f"{high:.2%}: there is nothing to unlearn, or nothing else was learned"
        )
    worst = limits.fid_ratio * values["fid_judge_real"]
    if values["fid_judge"] > worst:
        found = values["fid_judge"]
        return f"FID (judge) {found:.3g} is above {worst:.3g}, {limits.fid_ratio:g} times the real-vs-real one"
    return None
