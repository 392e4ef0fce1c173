"""One number for a row of several cells: the mean over seeds and over subjects, with its interval and replicates.

All seeds of a row draw from the same prompts and noise. So their values share what is due to these pictures, and a
Student interval over seeds is too narrow. Here an interval adds up what varies: pictures, by the bootstrap replicates
of the cells, averaged over seeds; and seeds, by a Student term with as many degrees of freedom as there are seeds less
one. Subjects are added in the same way. Sums are taken on a scale on which the quantity has no ends, so that a rate
stays within [0, 1].
"""

from dataclasses import dataclass

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


def average_seeds(parts: list[tuple[str, Estimate]], range_: Name, subject: str) -> Estimate:
    """The mean over seeds of one subject, given as (name, estimate); more seeds are not more pictures."""
    parts = [(name, _tile(part)) for name, part in parts]
    return _average(parts, "seeds", range_, min(part.samples for _, part in parts), f"seeds of {subject}")


def average_subjects(parts: list[tuple[str, Estimate]], range_: Name) -> Estimate:
    """The mean over subjects, given as (name, mean over its seeds); its pictures are those of all subjects."""
    return _average(parts, "subjects", range_, sum(part.samples for _, part in parts), "subjects")


def _tile(part: Estimate) -> Estimate:
    """The estimate with each of its replicates TIMES times, so that those of all rows have one length."""
    if part.replicates is None:
        return part
    tiled = np.tile(part.replicates, TIMES)
    return Estimate(part.value, part.lo, part.hi, part.n, part.interval, part.reason, part.samples, tiled)


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
    share = {part.interval for part in estimates} <= RATES and range_ == "share"
    drawn = replicate_mean(values, [part.replicates for part in estimates], range_, stream, samples if share else 0)
    mean = float(values.mean())
    lo, hi = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, min(mean, float(lo)), max(mean, float(hi)), len(parts), over, "", samples, drawn)


def replicate_mean(
    values: np.ndarray, replicates: list[np.ndarray | None], range_: Name, stream: str, pictures: int = 0
) -> np.ndarray:
    """Replicates [R] of the mean of `values` [K]: of its pictures, and of the K that were drawn from many.

    replicates: [R] each, of pictures; None for a count, which has none. pictures: how many a share is of, 0 for what is
    no share: a share of 0 or 1 has no spread in its replicates, so that half a picture of either kind is added with a
    random weight, as in Jeffreys' interval. All draws depend on `stream`, K and R alone. They are the same for every
    row, so that rows stay paired.
    """
    count = len(values)
    present = [part for part in replicates if part is not None]
    stacked = np.stack(present) if len(present) == count else np.repeat(values[:, None], REPLICATES * TIMES, 1)
    length = stacked.shape[1]
    generator = np.random.Generator(np.random.PCG64(seeds.derive("between", stream, count, length)))
    student = generator.standard_normal((count, length)) / np.sqrt(count * (count - 1))
    student /= np.sqrt(generator.chisquare(count - 1, length) / (count - 1))
    mean = values.mean()
    of_pictures = stacked.mean(axis=0)
    if pictures:
        added = generator.gamma(0.5, size=(2, length))
        of_pictures = (of_pictures * pictures + added[0]) / (pictures + added.sum(0))
        mean = (mean * pictures + 0.5) / (pictures + 1)
    scale = RANGES[range_]
    deviations = (values - values.mean()) * _excess(values, stacked) * scale.slope(np.asarray(mean))
    return scale.from_line(scale.to_line(of_pictures) + deviations @ student)


def _excess(values: np.ndarray, stacked: np.ndarray) -> float:
    """The part of the spread between values that their own pictures do not explain, as a factor in 0..1.

    What pictures explain is the spread of a value's replicates about the mean of all: pictures that are the same for
    all move the mean alone.
    """
    spread = values.var(ddof=1)
    if spread == 0:
        return 0.0
    explained = (stacked - stacked.mean(axis=0)).var(axis=1).sum() / (len(values) - 1)
    return float(np.sqrt(max(0.0, 1 - explained / spread)))
