"""One number with its interval, and the bootstrap replicates that let two rows be compared in pairs.

Sample i of every row of a task comes from the same noise, so all rows are resampled with the same weights. Replicate b
of one row belongs to replicate b of another, and their difference is a replicate of the difference.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palinode.core import seeds

LEVEL = 0.95
REPLICATES = 200
NOT_FINITE = "the value is not finite: the model's outputs overflow"


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval [lo, hi].

    value is None when the metric is absent, and `reason` then says why. n: what the interval was taken over; interval:
    "wilson", "bootstrap" or "none"; replicates: float64 [R], empty when there are none.
    """

    value: float | None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    interval: str = "none"
    replicates: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False)
    reason: str | None = None


@functools.lru_cache(maxsize=8)
def bootstrap_counts(n: int, replicates: int = REPLICATES, *stream: str) -> np.ndarray:
    """How often replicate b draws item i: int64 [R, n], each line sums to n; read-only, since it is shared.

    The same for every row. `stream` names an independent set of weights, for the second of two samples.
    """
    generator = np.random.Generator(np.random.PCG64(seeds.derive("bootstrap", n, *stream)))
    counts = np.zeros((replicates, n), dtype=np.int64)
    for replicate in range(replicates):
        counts[replicate] = np.bincount(generator.integers(n, size=n), minlength=n)
    counts.flags.writeable = False
    return counts


def from_rate(hits: np.ndarray, replicates: int = REPLICATES, stream: tuple[str, ...] = ()) -> Metric:
    """The share of true values in a bool array [n], with Wilson's score interval."""
    hits = np.asarray(hits, dtype=bool)
    n = len(hits)
    rate = float(np.mean(hits))
    drawn = bootstrap_counts(n, replicates, *stream) @ hits / n
    return Metric(rate, *wilson(rate, n), n, "wilson", drawn)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of n trials, with exact ends at 0 and 1."""
    z2 = _normal_quantile() ** 2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * rate * (1 - rate) / n + z2 * z2 / (4 * n * n)) / (1 + z2 / n)
    return (0.0 if rate == 0 else centre - half), (1.0 if rate == 1 else centre + half)


def share(hits: int, n: int) -> dict[str, Any]:
    """A share as the check of a base writes it: {value, lo, hi, n}, Wilson's interval."""
    lo, hi = wilson(hits / n, n)
    return {"value": hits / n, "lo": lo, "hi": hi, "n": n}


def from_samples(values: np.ndarray, replicates: int = REPLICATES) -> Metric:
    """The mean of values [n], with a percentile bootstrap interval (none for n = 1)."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        return absent(NOT_FINITE)
    return from_statistic(lambda counts: counts @ values / len(values), len(values), replicates)


def from_statistic(statistic: Callable[[np.ndarray], np.ndarray], n: int, replicates: int = REPLICATES) -> Metric:
    """A statistic of resampling counts: statistic(counts [R, n]) -> [R]; its value is the one at counts all 1."""
    value = float(statistic(np.ones((1, n), dtype=np.int64))[0])
    drawn = statistic(bootstrap_counts(n, replicates)) if n > 1 else np.full(replicates, value)
    return from_replicates(value, drawn, n)


def from_replicates(value: float, drawn: np.ndarray | Sequence[float], n: int, centred: bool = False) -> Metric:
    """A value with replicates computed elsewhere.

    centred: shift the replicates so that their mean is the value. Resampling biases some statistics: a resample has
    fewer distinct samples, which lowers an Inception Score and raises a Fréchet distance. Other values come from random
    subsets. The shift keeps spread and pairing.
    """
    replicates = np.asarray(drawn, dtype=np.float64)
    if not math.isfinite(value):
        return absent(NOT_FINITE)
    if n < 2 or not len(replicates) or not np.isfinite(replicates).all():
        return Metric(value, n=n, replicates=replicates)
    if centred:
        replicates = replicates - replicates.mean() + value
    lo, hi = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Metric(value, float(lo), float(hi), n, "bootstrap", replicates)


def exact(value: float) -> Metric:
    """A counted number, without an interval."""
    return Metric(value, n=1)


def absent(reason: str) -> Metric:
    """A metric that could not be computed, and why."""
    return Metric(None, reason=reason)


def to_entry(metric: Metric) -> dict[str, Any]:
    """The entry of metrics.json; a number that JSON lacks becomes null (value: with a reason)."""
    entry: dict[str, Any] = {name: _finite(getattr(metric, name)) for name in ("value", "lo", "hi")}
    entry["n"] = metric.n
    entry["interval"] = metric.interval
    if entry["value"] is None:
        entry["reason"] = metric.reason or NOT_FINITE
    return entry


def from_entry(entry: dict[str, Any], replicates: np.ndarray | None = None) -> Metric:
    """The inverse of `to_entry`."""
    return Metric(**entry, replicates=np.empty(0) if replicates is None else np.asarray(replicates, dtype=np.float64))


def pack(metrics: dict[str, Metric]) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """(metrics.json, replicates.npz) of named metrics; absent ones and those without replicates have no array."""
    entries = {name: to_entry(metric) for name, metric in metrics.items()}
    return entries, {name: metric.replicates for name, metric in metrics.items() if len(metric.replicates)}


def unpack(entries: dict[str, dict[str, Any]], replicates: dict[str, np.ndarray]) -> dict[str, Metric]:
    """The inverse of `pack`."""
    return {name: from_entry(entry, replicates.get(name)) for name, entry in entries.items()}


def _normal_quantile() -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + LEVEL) / 2)


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
