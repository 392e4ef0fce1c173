"""How much of the target an attack brings back, by its steps."""

import numpy as np

from palinode.metrics import record
from palinode.metrics.record import LEVEL, Metric

BACK = 0.5  # the share of pictures with the target at which it counts as back (DoCo digest, section 5)


def returned(attack: str, steps: list[int], seen: list[np.ndarray], replicates: int) -> dict[str, Metric]:
    """target_<attack>_<step>: share of pictures in which the judge sees the target; <attack>_steps: `first_back`.

    seen: bool [N] for each of `steps`, on the same prompts and noise, hence resampled with the same weights.
    """
    rates = [record.from_rate(hits, replicates, direction="down") for hits in seen]
    found = {f"target_{attack}_{step}": rate for step, rate in zip(steps, rates, strict=True)}
    return found | {f"{attack}_steps": first_back(steps, rates)}


def first_back(steps: list[int], rates: list[Metric]) -> Metric:
    """The first of `steps` at which the share is BACK, absent when it is at none, with a bootstrap interval over
    pictures; its upper end is infinite (null in files) where a fortieth of the resamples never gets there."""
    back = np.stack([[rate.value, *rate.replicates] for rate in rates], 1) >= BACK  # [1 + R, S]
    value, *drawn = np.where(back.any(1), np.array(steps)[back.argmax(1)], np.inf)
    if value == np.inf:
        return record.absent(f"the target is not back within {steps[-1]} steps", unit="steps", direction="up")
    lo, hi = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Metric(float(value), float(lo), float(hi), rates[0].n, "steps", "up", "bootstrap")
