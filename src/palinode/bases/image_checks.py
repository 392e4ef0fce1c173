"""What an unconditional base must show before anything is unlearned from it."""

import numpy as np

from palinode.classifiers.digits import Judge
from palinode.metrics import forgetting, quality
from palinode.metrics.features import JudgeBackbone
from palinode.params.bases import ImageGate

SPLITS = 10  # of the Inception Score


def measure(
    images: np.ndarray,
    *,
    train: np.ndarray,
    repeated: np.ndarray,
    reference: np.ndarray,
    hit_distance: float,
    judge: Judge,
) -> dict:
    """The base model's hit rate, and what the judge says of its quality.

    That is the FID, with the real-vs-real FID as its scale, and the Inception Score beside that of as many real images.
    images: samples; train, repeated: the two parts of the training set; reference: real images that are in neither; all
    uint8 [N, H, W, C]. Hits are left out of both.
    """
    hits = forgetting.find_hits(images, repeated, hit_distance)
    backbone = JudgeBackbone(judge)
    kept = images[~hits]
    real = backbone.features(reference)
    drawn = backbone.features(kept)
    trained = backbone.features(train[: len(kept)])
    count = min(len(kept), len(reference))
    return {
        "samples": len(images),
        "hits": int(hits.sum()),
        "hit_rate": float(hits.mean()),
        "fid_judge": quality.fid(drawn, real, replicates=2).value,
        "fid_judge_real": quality.fid(trained, real, replicates=2).value,
        "inception_score": _inception_score(backbone, kept[:count]),
        "inception_score_real": _inception_score(backbone, reference[:count]),
    }


def _inception_score(backbone: JudgeBackbone, images: np.ndarray) -> float | None:
    """None of too few images."""
    keep = np.ones(len(images), bool)
    return quality.inception_score(backbone.logits(images), keep, SPLITS, replicates=2).value


def problem(values: dict, limits: ImageGate) -> str | None:
    """Why the base model is refused, or None."""
    low, high = limits.hit_rate
    if not low <= values["hit_rate"] <= high:
        return (
            f"the repeated images appear in {values['hit_rate']:.2%} of {values['samples']} samples, outside {low:.2%} "
            f"to {high:.2%}: there is nothing to unlearn, or nothing else was learned"
        )
    worst = limits.fid_ratio * values["fid_judge_real"]
    if values["fid_judge"] > worst:
        scale = f"{limits.fid_ratio:g} times the real-vs-real one"
        return f"FID (judge) {values['fid_judge']:.3g} is above {worst:.3g}, {scale}"
    return _problem_of_score(values["inception_score"], values["inception_score_real"], limits.inception_share)


def _problem_of_score(score: float | None, real: float | None, share: float) -> str | None:
    if not share:
        return None
    if score is None or real is None:
        return "there are too few samples for an Inception Score"
    if score < share * real:
        return f"Inception Score {score:.3g} is below {share * real:.3g}, {share:.0%} of that of real images"
    return None
