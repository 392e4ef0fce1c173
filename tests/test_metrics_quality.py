"""Quality metrics against the reference libraries and brute force."""

import numpy as np
import pytest
import torch
from scipy import linalg

from palinode.core.estimate import bootstrap_counts
from palinode.metrics import quality


def normal(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(seed))
    return (generator.normal(size=(n, d)) + shift).astype(np.float32)


@pytest.fixture(autouse=True)
def global_generators_stay_as_they_were():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_inception_score_is_torchmetrics_and_its_replicates_use_the_same_formula():
    logits, keep = normal(0, 300, 10) * 3, np.ones(300, dtype=bool)
    keep[::50] = False
    metric = quality.inception_score(logits, keep, 10, 50)
    with quality._seeded("inception-score", keep.sum()):
        order = torch.randperm(int(keep.sum()))
    log_p = torch.from_numpy(logits[keep])[order].double().log_softmax(1).numpy()
    ours = quality.split_scores(log_p, np.ones((1, len(order))), 10)[0]
    assert metric.value == pytest.approx(ours, rel=1e-5)
    assert metric.n == 294 and metric.lo < metric.value < metric.hi


def test_inception_score_at_its_ends():
    n = 100
    certain = 100 * np.eye(10, dtype=np.float32)[np.arange(n) % 10]
    keep = np.ones(n, dtype=bool)
    assert quality.inception_score(certain, keep, 1, 5).value == pytest.approx(10)
    assert quality.inception_score(np.zeros((n, 10), np.float32), keep, 10, 5).value == pytest.approx(1)
    assert quality.inception_score(certain, keep & (np.arange(n) < 15), 10, 5).value is None


def test_weights_are_copies():
    log_p = torch.from_numpy(normal(1, 40, 10)).double().log_softmax(1).numpy()
    counts = bootstrap_counts(40, 3)
    for line in counts:
        copied = np.repeat(log_p, line, axis=0)
        assert quality.split_scores(log_p, line[None], 1) == pytest.approx(
            quality.split_scores(copied, np.ones((1, 40)), 1)
        )


def test_fid_value_and_replicates_agree():
    x, y = normal(0, 400, 8), normal(1, 500, 8, 0.2)
    ours = quality.frechet_distances(x.astype(float), np.ones((1, 400), int), y.mean(0), np.cov(y, rowvar=False))[0]
    assert quality.fid_value(x, y) == pytest.approx(ours, rel=1e-5)
    metric = quality.fid(x, y, 100)
    assert metric.lo < metric.value < metric.hi and metric.replicates.mean() == pytest.approx(metric.value)


def test_fid_replicate_is_the_fid_of_the_resample():
    x, y = normal(0, 60, 4).astype(float), normal(1, 80, 4).astype(float)
    line = bootstrap_counts(60, 1)
    distances = quality.frechet_distances(x, line, y.mean(0), np.cov(y, rowvar=False))[0]
    assert distances == pytest.approx(quality.fid_value(np.repeat(x, line[0], axis=0), y), rel=1e-8)


def test_fid_is_torchmetrics_fid():
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = normal(0, 300, 6), normal(1, 300, 6, 0.3)
    feature = torch.nn.Identity()
    feature.num_features = 6
    reference = FrechetInceptionDistance(feature=feature, input_img_size=(6,))
    reference.update(torch.from_numpy(y), real=True)
    reference.update(torch.from_numpy(x), real=False)
    assert quality.fid_value(x, y) == pytest.approx(float(reference.compute()), rel=1e-4)


def test_fid_of_a_collapsed_model_is_a_number():
    y = normal(1, 200, 8)
    same = np.zeros((200, 8), np.float32)
    expected = (y.mean(0).astype(float) ** 2).sum() + np.trace(np.cov(y, rowvar=False))
    assert quality.fid_value(same, y) == pytest.approx(expected, rel=1e-3)
    dead = y.copy()
    dead[:, :3] = 0  # a feature that never fires
    root = linalg.sqrtm(np.cov(dead, rowvar=False)[3:, 3:] @ np.cov(dead, rowvar=False)[3:, 3:])
    assert np.isfinite(root).all() and quality.fid_value(dead, dead) == pytest.approx(0, abs=1e-3)


def test_fid_needs_more_samples_than_features():
    assert "covariance of 64 features" in quality.fid(normal(0, 60, 64), normal(1, 100, 64), 5).reason


def brute_force_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        return (a.astype(float) @ b.T.astype(float) / a.shape[1] + 1) ** 3

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()


def test_kernel_distance_is_torchmetrics_and_brute_force(monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 16)
    x, y = normal(0, 50, 5), normal(1, 60, 5, 0.5)
    assert quality.kernel_distances(x, y, np.ones((1, 50), int))[0] == pytest.approx(brute_force_mmd(x, y))
    y = y[:50]  # subsets of everything: torchmetrics then gives the full estimator
    assert quality.kid(x, y, 50, 5).value == pytest.approx(brute_force_mmd(x, y), rel=1e-6)


def test_kernel_replicates_are_not_biased():
    x, y = normal(0, 80, 5), normal(1, 80, 5)
    drawn = quality.kernel_distances(x, y, bootstrap_counts(80, 2000))
    assert drawn.mean() == pytest.approx(brute_force_mmd(x, y), abs=4 * drawn.std() / 2000**0.5)


def test_kid_of_equal_distributions_covers_zero_and_is_repeatable():
    x, y = normal(0, 300, 8), normal(1, 300, 8)
    metric = quality.kid(x, y, 100, 100)
    assert metric.value == quality.kid(x, y, 100, 100).value and abs(metric.value) < 3 * metric.replicates.std()


def test_precision_and_recall_by_brute_force(monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 7)
    x, y = normal(0, 30, 2), normal(1, 25, 2, 1.0)

    def share(points, manifold):
        hits = 0
        for point in points:
            for centre in manifold:
                radius = np.sort(np.linalg.norm(manifold - centre, axis=1))[3]
                if np.linalg.norm(point - centre) <= radius:
                    hits += 1
                    break
        return hits / len(points)

    precision, recall = quality.precision_recall(x, y, 20)
    assert (precision.value, recall.value) == pytest.approx((share(x, y), share(y, x)))


def test_precision_and_recall_at_their_ends():
    x = normal(0, 40, 3)
    assert [metric.value for metric in quality.precision_recall(x, x, 5)] == [1, 1]
    assert [metric.value for metric in quality.precision_recall(x, x + 100, 5)] == [0, 0]
    collapsed = np.repeat(x[:1], 40, axis=0)
    precision, recall = quality.precision_recall(collapsed, x, 5)
    assert precision.value == 1 and recall.value <= 1 / 40
