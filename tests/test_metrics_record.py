"""Intervals, replicates and their files."""

import json

import numpy as np
import pytest
from scipy import stats

from palinode.core import estimate, io


def test_wilson_interval_is_scipys():
    for hits in (0, 3, 40):
        metric = estimate.from_rate(np.arange(40) < hits)
        expected = stats.binomtest(hits, 40).proportion_ci(0.95, "wilson")
        assert (metric.lo, metric.hi) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_counts_are_resamples_and_the_same_every_time():
    counts = estimate.bootstrap_counts(50, 30)
    assert counts.shape == (30, 50) and (counts.sum(1) == 50).all()
    estimate.bootstrap_counts.cache_clear()
    assert (estimate.bootstrap_counts(50, 30) == counts).all()
    assert (estimate.bootstrap_counts(50, 10) == counts[:10]).all()
    assert (estimate.bootstrap_counts(50, 30, "reference") != counts).any()


def test_replicates_of_two_rows_are_paired():
    values = np.random.Generator(np.random.PCG64(0)).normal(size=100)
    metric = estimate.from_samples(values)
    shifted = estimate.from_samples(values + 0.5)
    assert np.allclose(shifted.replicates - metric.replicates, 0.5)
    assert metric.lo < metric.value < metric.hi


def test_bootstrap_interval_of_a_mean_is_close_to_students():
    values = np.random.Generator(np.random.PCG64(1)).normal(size=400)
    metric = estimate.from_samples(values, 2000)
    lo, hi = stats.t.interval(0.95, 399, loc=np.mean(values), scale=stats.sem(values))
    assert (metric.lo, metric.hi) == pytest.approx((lo, hi), abs=0.01)


def test_centring_moves_replicates_to_the_value():
    metric = estimate.from_replicates(2.0, [0.0, 1.0, 2.0], 5, centred=True)
    assert metric.replicates.tolist() == [1, 2, 3]


def test_values_that_are_not_finite_become_null_with_a_reason():
    metric = estimate.from_samples(np.array([1.0, np.inf]))
    entry = estimate.to_entry(metric)
    assert entry["value"] is None and "not finite" in entry["reason"]


def test_metrics_survive_their_files(tmp_path):
    metrics = {
        "rate": estimate.from_rate(np.array([True, False, False])),
        "one": estimate.from_samples(np.array([2.0])),
        "count": estimate.exact(12),
        "gone": estimate.absent("no judge"),
    }
    entries, replicates = estimate.pack(metrics)
    io.write_json(tmp_path / "metrics.json", entries)
    io.write_arrays(tmp_path / "replicates.npz", replicates)
    with np.load(tmp_path / "replicates.npz") as arrays:
        back = estimate.unpack(json.loads((tmp_path / "metrics.json").read_text()), dict(arrays))
    assert back == metrics
    assert all((back[name].replicates == metrics[name].replicates).all() for name in metrics)
    assert set(entries["rate"]) == {"value", "lo", "hi", "n", "interval"}
    assert entries["gone"]["reason"] == "no judge"
