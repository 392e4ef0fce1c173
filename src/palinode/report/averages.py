"""One number for a row of several cells: the mean over seeds and over subjects, with its interval and replicates."""

from dataclasses import dataclass

import numpy as np

from palinode.core import seeds
from palinode.core.estimate import t_interval, wilson

RATES = {"wilson", "wilson-t"}


@dataclass(frozen=True)
class Estimate:
    """A metric of one row. `value` is None exactly when `reason` says why.

    n: what the interval was taken over, which is seeds or subjects where there are several; samples: how many pictures
    or prompts one seed's value rests on, over all subjects; replicates: float64 [R], or None if there are none.
    """

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    interval: str = "none"
    reason: str = ""
    samples: int = 0
    replicates: np.ndarray | None = None


def average_seeds(parts: list[tuple[str, Estimate]]) -> Estimate:
    """The mean over seeds, given as (name, estimate).

    All seeds draw from the same noise, so that more seeds are not more pictures: a rate's interval is at least
    Wilson's for the pictures of one seed.
    """
    return _average(parts, "seeds", min(part.samples for _, part in parts))


def average_subjects(parts: list[tuple[str, Estimate]]) -> Estimate:
    """The mean over subjects, given as (name, mean over its seeds); a rate's pictures are those of all subjects."""
    return _average(parts, "subjects", sum(part.samples for _, part in parts))


def _average(parts: list[tuple[str, Estimate]], over: str, samples: int) -> Estimate:
    """The only part as it is; else the mean with Student's t, widened for rates and kept within [0, 1]."""
    estimates = [part for _, part in parts]
    first = estimates[0]
    if len(parts) == 1:
        return first
    for name, part in parts:
        if part.value is None:
            return Estimate(reason=f"{over.removesuffix('s')} {name}: {part.reason}")
    values = [part.value for part in estimates if part.value is not None]
    intervals = {part.interval for part in estimates}
    if len(set(values)) == 1 and intervals == {"none"}:
        return first  # an exact count, the same for all
    kind = "t"
    mean, lo, hi = t_interval(values)
    if intervals <= RATES:
        kind = "wilson-t"
        low, high = wilson(mean, samples)
        lo = max(0.0, min(lo, low))
        hi = min(1.0, max(hi, high))
    replicates = combine_replicates([part.replicates for part in estimates], over)
    return Estimate(mean, lo, hi, len(parts), kind, "", samples, replicates)


def combine_replicates(parts: list[np.ndarray | None], over: str) -> np.ndarray | None:
    """Replicates of a mean: replicate b draws as many of the parts as there are, and averages their b-th replicates.

    The draws depend on `over`, the number of parts and b alone. They are the same for every row, so the pairing of
    rows survives. parts: [R] each; over: "seeds" or "subjects".
    """
    present = [part for part in parts if part is not None]
    if len(present) < len(parts):
        return None
    stacked = np.stack(present)  # [parts, R]
    count, replicates = stacked.shape
    rng = np.random.Generator(np.random.PCG64(seeds.derive(f"bootstrap-{over}", count)))
    drawn = rng.integers(count, size=(count, replicates))
    return np.take_along_axis(stacked, drawn, axis=0).mean(axis=0)
