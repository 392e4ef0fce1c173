"""One number for a row of several cells: the mean over seeds and over subjects, with its interval and replicates.

All seeds of a row draw from the same prompts and noise. So their values share what is due to these pictures, and a
Student interval over seeds is too narrow. Here an interval adds up what varies: pictures, by the bootstrap replicates
of the cells, averaged over seeds; and seeds, by a Student term with as many degrees of freedom as there are seeds less
one. Subjects are added in the same way. Sums are taken on a scale on which the quantity has no ends, so that a rate
stays within [0, 1].
"""

from dataclasses import dataclass, replace

import numpy as np

from palinode.core import seeds
from palinode.core.estimate import LEVEL, REPLICATES
from palinode.core.ranges import RANGES, Name

TIMES = 10  # draws of the Student term for each replicate of the pictures
RATES = {"wilson"}  # intervals of cells whose value is a share of pictures


@dataclass(frozen=True)
class Estimate:
    """A metric of one row. `value` is None exactly when `reason` says why.

    n: what the interval was taken over, which is seeds or subjects where there are several; samples: how many pictures
    or prompts one seed's value rests on, over all subjects; replicates: float64 [R], or None if there are none;
    variance: of the value, from pictures and seeds, as far as it is known.
    """

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    interval: str = "none"
    reason: str = ""
    samples: int = 0
    replicates: np.ndarray | None = None
    variance: float = 0.0


def average_seeds(parts: list[tuple[str, Estimate]], range_: Name, subject: str) -> Estimate:
    """The mean over seeds of one subject, given as (name, estimate); more seeds are not more pictures."""
    parts = [(name, _tile(part)) for name, part in parts]
    samples = min(part.samples for _, part in parts)
    return _average(parts, "seeds", range_, samples, f"seeds of {subject}")


def average_subjects(parts: list[tuple[str, Estimate]], range_: Name) -> Estimate:
    """The mean over subjects, given as (name, mean over its seeds); its pictures are those of all subjects."""
    samples = sum(part.samples for _, part in parts)
    return _average(parts, "subjects", range_, samples, "subjects")


def _tile(part: Estimate) -> Estimate:
    """A cell's estimate with each of its replicates TIMES times, so that those of all rows have one length."""
    if part.replicates is None:
        return part
    variance = float(part.replicates.var())
    return replace(part, replicates=np.tile(part.replicates, TIMES), variance=variance)


def _average(parts: list[tuple[str, Estimate]], over: str, range_: Name, samples: int, stream: str) -> Estimate:
    """The only part as it is, its interval of pictures alone; else the mean of all."""
    estimates = [part for _, part in parts]
    first = estimates[0]
    if len(parts) == 1:
        return first
    for name, part in parts:
        if part.value is None:
            return Estimate(reason=f"{over.removesuffix('s')} {name}: {part.reason}")
    values = np.array([part.value for part in estimates])
    if len(set(values.tolist())) == 1 and {part.interval for part in estimates} == {"none"}:
        return first  # an exact count, the same for all
    drawn = [part.replicates for part in estimates if part.replicates is not None]
    complete = len(drawn) == len(estimates)
    pictures = np.stack(drawn) if complete else np.repeat(values[:, None], REPLICATES * TIMES, axis=1)
    defined = bool(np.isfinite(pictures).all())
    if not defined:  # in a resample that a metric cannot be computed of
        pictures = np.repeat(values[:, None], pictures.shape[1], axis=1)
    explained = _explained(pictures) if over == "seeds" else float(np.mean([part.variance for part in estimates]))
    share = {part.interval for part in estimates} <= RATES and range_ == "share"
    replicates = replicate_mean(values, pictures, explained, range_, stream, samples if share else 0)
    lo, hi = _interval(float(values.mean()), replicates, [] if complete else estimates)
    return Estimate(
        value=float(values.mean()),
        lo=lo,
        hi=hi,
        n=len(parts),
        interval=over,
        samples=samples,
        replicates=_usable(replicates, estimates, defined),
        variance=float(pictures.mean(axis=0).var() + _beyond(values, explained) / len(values)),
    )


def _usable(replicates: np.ndarray, cells: list[Estimate], defined: bool) -> np.ndarray | None:
    """What claims may use: nothing of cells that have none, unless they are counts; NaN where a resample has none."""
    if any(part.replicates is None and part.interval != "none" for part in cells):
        return None
    return replicates if defined else np.full(len(replicates), np.nan)


def _interval(mean: float, replicates: np.ndarray, cells: list[Estimate]) -> tuple[float, float]:
    """The replicates' interval, around the mean; cells without replicates add their own, which pictures gave them."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    lows = [mean, float(low)]
    highs = [mean, float(high)]
    ends = [(part.lo, part.hi) for part in cells if part.lo is not None and part.hi is not None]
    if ends:
        lows.append(float(np.mean([lo for lo, _ in ends])))
        highs.append(float(np.mean([hi for _, hi in ends])))
    return min(lows), max(highs)


def replicate_mean(
    values: np.ndarray, pictures: np.ndarray, explained: float, range_: Name, stream: str, count_of: int = 0
) -> np.ndarray:
    """Replicates [R] of the mean of `values` [K]: of its pictures, and of the K that were drawn from many.

    pictures: [K, R], replicates of each value; explained: the variance between values that is theirs; count_of: how
    many pictures a share is of, 0 for what is no share. A share of 0 or 1 has no spread in its replicates. So half a
    picture of either kind is added with a random weight, as in Jeffreys' interval. All draws depend on `stream`, K and
    R alone. They are the same for every row, so that rows stay paired.
    """
    count, length = pictures.shape
    generator = np.random.Generator(np.random.PCG64(seeds.derive("between", stream, count, length)))
    student = generator.standard_normal((count, length)) / np.sqrt(count * (count - 1))
    student /= np.sqrt(generator.chisquare(count - 1, length) / (count - 1))
    mean = values.mean()
    of_pictures = pictures.mean(axis=0)
    if count_of:
        added = generator.gamma(0.5, size=(2, length))
        of_pictures = (of_pictures * count_of + added[0]) / (count_of + added.sum(0))
        mean = (mean * count_of + 0.5) / (count_of + 1)
    scale = RANGES[range_]
    spread = values.var(ddof=1)
    factor = np.sqrt(_beyond(values, explained) / spread) if spread else 0.0
    deviations = (values - values.mean()) * factor * scale.slope(np.asarray(mean))
    with np.errstate(over="ignore"):  # far out on the line is an end of the range
        return scale.from_line(scale.to_line(of_pictures) + deviations @ student)


def _explained(pictures: np.ndarray) -> float:
    """The variance between seeds that their pictures explain: that of replicates about the mean of all.

    What the same pictures do to all seeds moves the mean alone. pictures: [K, R].
    """
    return float((pictures - pictures.mean(axis=0)).var(axis=1).sum() / (len(pictures) - 1))


def _beyond(values: np.ndarray, explained: float) -> float:
    """The variance between values beyond what is explained."""
    return max(0.0, float(values.var(ddof=1)) - explained)
