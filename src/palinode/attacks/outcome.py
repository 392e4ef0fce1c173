"""How much of the target an attack brings back, by its steps."""

import numpy as np

from palinode.core import estimate
from palinode.core.estimate import LEVEL, Metric

BACK = 0.5  # the share of pictures with the target at which it counts as back; our choice


def measure_return(attack: str, steps: list[int], with_target: list[np.ndarray], replicates: int) -> dict[str, Metric]:
    """target_<attack>_<step>: share of pictures in which the judge sees the target; <attack>_steps: `first_back`.

    attack: its name in params.yaml, whose "-" becomes "_" in the metrics' names; with_target: bool [N] for each of
    `steps`, on the same prompts and noise, hence resampled with the same weights.
    """
    name = attack.replace("-", "_")
    rates = [estimate.from_rate(hits, replicates) for hits in with_target]
    metrics = {f"target_{name}_{step}": rate for step, rate in zip(steps, rates, strict=True)}
    return metrics | {f"{name}_steps": first_back(steps, rates)}


def first_back(steps: list[int], rates: list[Metric]) -> Metric:
    """The first of `steps` at which the share is BACK, with a bootstrap interval over pictures.

    Absent when the share is BACK at none. The interval's upper end is infinite (null in files) where a fortieth of the
    resamples never gets there.
    """
    back = np.stack([[rate.value, *rate.replicates] for rate in rates], 1) >= BACK  # [1 + R, S]
    value, *drawn = np.where(back.any(1), np.array(steps)[back.argmax(1)], np.inf)
    if value == np.inf:
        return estimate.absent(f"the target is not back within {steps[-1]} steps")
    lo, hi = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Metric(float(value), float(lo), float(hi), rates[0].n, "bootstrap")
