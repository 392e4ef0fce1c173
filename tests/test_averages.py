"""Means over seeds and subjects: intervals that cover what they say, keep the range, and leave rows paired."""

import numpy as np
import pytest

from palinode.core.estimate import REPLICATES, bootstrap_counts, wilson
from palinode.core.ranges import RANGES
from palinode.report.averages import TIMES, Estimate, average_seeds, average_subjects

PICTURES = 64
TRIALS = 400


def measured(values: np.ndarray) -> Estimate:
    """What a cell's evaluation says of the mean of some pictures."""
    n = len(values)
    value = float(values.mean())
    drawn = bootstrap_counts(n) @ values / n
    is_share = set(np.unique(values)) <= {0.0, 1.0}
    lo, hi = wilson(value, n) if is_share else np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, lo, hi, n, "wilson" if is_share else "bootstrap", samples=n, replicates=drawn)


def over_seeds(pictures: list[np.ndarray], range_: str) -> Estimate:
    return average_seeds([(str(i), measured(values)) for i, values in enumerate(pictures)], range_, "0")


class World:
    """A quantity of pictures that all seeds share, and of seeds: normal on the line of its scale."""

    def __init__(self, range_: str, centre: float, of_seeds: float, of_pictures: float):
        self.range = range_
        self.centre = centre
        self.of_seeds = of_seeds
        self.of_pictures = of_pictures

    def draw(self, rng: np.random.Generator, seeds: int) -> list[np.ndarray]:
        shared = self.of_pictures * rng.normal(size=PICTURES)
        return [self.values(self.centre + self.of_seeds * rng.normal() + shared, rng) for _ in range(seeds)]

    def values(self, line: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.range == "share":
            return (rng.random(line.shape) < RANGES["share"].from_line(line)).astype(float)
        return RANGES[self.range].from_line(line)

    def truth(self, rng: np.random.Generator) -> float:
        line = self.centre + np.hypot(self.of_seeds, self.of_pictures) * rng.normal(size=400_000)
        return float(RANGES[self.range].from_line(line).mean())


WORLDS = {
    "half": World("share", 0.0, 0.5, 1.0),
    "few": World("share", -3.5, 0.5, 1.0),
    "most": World("share", 2.5, 0.5, 1.0),
    "pictures alone": World("share", -1.0, 0.0, 1.0),
    "positive": World("positive", 0.0, 0.3, 0.6),
    "positive, pictures alone": World("positive", 0.0, 0.0, 0.4),
    "cosine": World("cosine", 1.2, 0.3, 0.5),
    "at most 1": World("at most 1", 1.0, 0.3, 0.5),
    "any": World("any", 0.0, 0.5, 2.0),
}


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("name", list(WORLDS))
def test_intervals_cover_what_they_say(name, seeds):
    """92 to 98 % at five seeds and more; what three give is printed. The trials' own error is 1.1 points."""
    world = WORLDS[name]
    rng = np.random.default_rng(seeds)
    truth = world.truth(rng)
    covered = 0
    for _ in range(TRIALS):
        estimate = over_seeds(world.draw(rng, seeds), world.range)
        covered += estimate.lo <= truth <= estimate.hi
    share = covered / TRIALS
    print(f"{name}, {seeds} seeds: {share:.1%}")
    low, high = (0.92, 0.98) if seeds >= 5 else (0.87, 0.99)
    assert low - 0.011 <= share <= high + 0.011


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("of_seeds", [0.02, 0.5])
def test_intervals_over_subjects_cover_what_they_say(of_seeds, seeds):
    """Five subjects that differ, each with a few seeds: what seeds and pictures do must not hide the subjects."""
    rng = np.random.default_rng(seeds)
    covered = 0
    for _ in range(TRIALS):
        parts = []
        for subject in range(5):
            world = World("any", rng.normal(), of_seeds, 1.0)
            cells = [(str(i), measured(values)) for i, values in enumerate(world.draw(rng, seeds))]
            parts.append((str(subject), average_seeds(cells, "any", str(subject))))
        estimate = average_subjects(parts, "any")
        covered += estimate.lo <= 0 <= estimate.hi
    share = covered / TRIALS
    print(f"5 subjects, {seeds} seeds of spread {of_seeds}: {share:.1%}")
    assert share >= 0.92 - 0.011, "two seeds have a Student term of one degree of freedom, which is wider than need be"


def test_an_interval_keeps_the_range():
    rng = np.random.default_rng(0)
    for world in WORLDS.values():
        for _ in range(20):
            estimate = over_seeds(world.draw(rng, 3), world.range)
            assert estimate.lo <= estimate.value <= estimate.hi
            if world.range == "share":
                assert estimate.lo >= 0 and estimate.hi <= 1
            if world.range == "positive":
                assert estimate.lo > 0
            if world.range in ("cosine", "at most 1"):
                assert estimate.hi <= 1


def test_a_share_of_none_is_not_certain():
    none = over_seeds([np.zeros(PICTURES)] * 3, "share")
    low, high = wilson(0.0, PICTURES)
    assert (none.value, none.lo) == (0, low) and 0.5 * high < none.hi < 1.5 * high


def test_seeds_that_differ_widen_an_interval():
    alike = over_seeds([np.arange(PICTURES) / PICTURES] * 3, "any")
    apart = over_seeds([np.arange(PICTURES) / PICTURES + shift for shift in (-0.5, 0, 0.5)], "any")
    assert apart.value == pytest.approx(alike.value)
    assert apart.hi - apart.lo > 5 * (alike.hi - alike.lo)


def test_more_seeds_are_not_more_pictures():
    """Where seeds agree, their interval is that of the pictures."""
    values = np.random.default_rng(0).normal(size=PICTURES)
    single = measured(values)
    many = over_seeds([values] * 10, "any")
    assert (many.lo, many.hi) == pytest.approx((single.lo, single.hi), abs=0.02)


def test_rows_stay_paired():
    """The same pictures and seeds in two rows: their difference is the same in every replicate."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=PICTURES) + shift for shift in (0.0, 0.3, 1.0)]
    first = over_seeds(values, "any")
    second = over_seeds([part + 0.1 for part in values], "any")
    assert len(first.replicates) == TIMES * REPLICATES
    assert second.replicates == pytest.approx(first.replicates + 0.1)


def test_subjects_add_what_varies_between_them():
    rng = np.random.default_rng(0)

    def subject(level: float) -> Estimate:
        return average_seeds([("0", measured(level + rng.normal(size=PICTURES)))], "any", "0")

    near = average_subjects([(str(i), subject(0.0)) for i in range(5)], "any")
    far = average_subjects([(str(i), subject(3.0 * i)) for i in range(5)], "any")
    assert near.hi - near.lo < 1 < far.hi - far.lo
    assert (near.interval, near.n, near.samples) == ("subjects", 5, 5 * PICTURES)


def test_a_replicate_that_is_undefined_enters_no_interval():
    """Then seeds alone speak; the replicates stay undefined, so that no claim is judged on them."""
    cells = [measured(np.arange(PICTURES) + shift) for shift in (0.0, 1.0, 2.0)]
    broken = np.array([np.nan, *cells[0].replicates[1:]])
    cells[0] = Estimate(cells[0].value, cells[0].lo, cells[0].hi, PICTURES, "bootstrap", replicates=broken)
    estimate = average_seeds([(str(i), cell) for i, cell in enumerate(cells)], "any", "0")
    assert estimate.lo < estimate.value - 0.5 and estimate.hi > estimate.value + 0.5
    assert np.isnan(estimate.replicates).all()


def test_cells_without_replicates_keep_the_width_of_their_own_intervals():
    cells = [Estimate(10.0, 5.0, 20.0, 48, "bootstrap", samples=48) for _ in range(2)]
    estimate = average_seeds([(str(i), cell) for i, cell in enumerate(cells)], "positive", "0")
    assert (estimate.lo, estimate.hi, estimate.replicates) == (5.0, 20.0, None)
