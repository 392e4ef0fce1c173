"""Sample quality: Inception Score, Fréchet and kernel distance, precision and recall, on features of a named network.

Values come from the reference implementations (torchmetrics, clean-fid). Bootstrap replicates come from formulas
vectorised over replicates, which the tests hold equal to those implementations. Replicates are centred where
resampling biases the statistic.
"""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from palinode.core import seeds
from palinode.core.estimate import Metric, absent, bootstrap_counts, from_rate, from_replicates

BLOCK = 1024
KID_SUBSETS = 100
NEIGHBOURS = 3


def inception_score(logits: np.ndarray, keep: np.ndarray, splits: int, replicates: int) -> Metric:
    """Inception Score of the samples in `keep`: exp of the mean KL(p(y|x) || p(y)), mean over parts.

    As Table 2 of the SISS paper (arXiv 2503.01034) has it: samples of the forget image are left out. logits: float [N,
    classes]; keep: bool [N], False for these. Value: torchmetrics. Replicates: the same parts with resampled weights.
    Sample i keeps its weight in every row, also when other samples are left out.
    """
    from torchmetrics.image.inception import InceptionScore

    kept = np.flatnonzero(keep)
    if len(kept) < 2 * splits:
        return absent(f"{len(kept)} samples are left without the forget image, {splits} parts need twice as many")
    chosen = torch.from_numpy(np.ascontiguousarray(logits[kept])).float()
    with _seeded("inception-score", len(kept)):
        score = InceptionScore(feature=torch.nn.Identity(), splits=splits)
        score.update(chosen)
        value = float(score.compute()[0])
    with _seeded("inception-score", len(kept)):  # torchmetrics' own permutation, so that the parts are the same
        order = torch.randperm(len(kept))
    weights = bootstrap_counts(len(keep), replicates)[:, kept][:, order]
    drawn = split_scores(chosen[order].double().log_softmax(1).numpy(), weights, splits)
    return from_replicates(value, drawn, len(kept), centred=True)


def split_scores(log_p: np.ndarray, weights: np.ndarray, splits: int) -> np.ndarray:
    """Inception Scores [R] under weights [R, N], mean of `splits` consecutive parts; log_p: log p(y|x) [N, classes]."""
    p = np.exp(log_p)
    scores = []
    negative_entropy = (p * log_p).sum(1)
    for part in torch.arange(len(p)).chunk(splits):
        w = weights[:, part].astype(np.float64)
        w /= w.sum(1, keepdims=True)
        marginal = w @ p[part]
        cross = (marginal * np.log(np.maximum(marginal, np.finfo(np.float64).tiny))).sum(1)
        scores.append(np.exp(w @ negative_entropy[part] - cross))
    return np.stack(scores).mean(0)


def fid(features: np.ndarray, reference: np.ndarray, replicates: int) -> Metric:
    """Fréchet distance between features [N, d] and reference [M, d]. Value: clean-fid. Samples alone are resampled."""
    n, d = features.shape
    fewest = min(n, len(reference))
    if fewest <= d:
        return absent(f"{fewest} samples cannot estimate the covariance of {d} features")
    value = fid_value(features, reference)
    mu, cov = _moments(reference)
    drawn = frechet_distances(features.astype(np.float64), bootstrap_counts(n, replicates), mu, cov)
    return from_replicates(value, drawn, n, centred=True)


def fid_value(features: np.ndarray, reference: np.ndarray) -> float:
    """clean-fid's Fréchet distance between Gaussians fitted to features [N, d] and [M, d]."""
    from cleanfid.fid import frechet_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # sqrtm warns about the singular covariance of equal samples
        return float(frechet_distance(*_moments(features), *_moments(reference)))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = features.astype(np.float64)
    return features.mean(0), np.cov(features, rowvar=False)


def frechet_distances(features: np.ndarray, counts: np.ndarray, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Fréchet distances [R] of features [N, d] under counts [R, N] to N(mu, cov).

    tr sqrt(S C) is the sum of the roots of the eigenvalues of C^1/2 S C^1/2, which is symmetric: far cheaper than
    sqrtm, and defined for singular S.
    """
    values, vectors = np.linalg.eigh(cov)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    distances = []
    for line in counts:
        n = line.sum()
        mean = line @ features / n
        centred = features - mean
        sigma = (centred * line[:, None]).T @ centred / (n - 1)
        trace_root = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ sigma @ root), 0)).sum()
        distances.append(((mean - mu) ** 2).sum() + np.trace(sigma) + np.trace(cov) - 2 * trace_root)
    return np.array(distances)


def kid(features: np.ndarray, reference: np.ndarray, subset_size: int, replicates: int) -> Metric:
    """Kernel distance, polynomial kernel of degree 3. Value: torchmetrics, mean of 100 seeded subsets.

    Replicates: the unbiased estimator on all samples under resampling weights, centred on the value.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(subset_size, len(features), len(reference))
    if size < 2:
        return absent("the kernel distance needs at least two samples")
    subsets = 1 if size == len(features) == len(reference) else KID_SUBSETS  # subsets of everything are all the same
    with _seeded("kid", len(features), len(reference)):
        distance = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=subsets, subset_size=size)
        distance.update(torch.from_numpy(np.ascontiguousarray(reference)).double(), real=True)
        distance.update(torch.from_numpy(np.ascontiguousarray(features)).double(), real=False)
        value = float(distance.compute()[0])
    drawn = kernel_distances(features, reference, bootstrap_counts(len(features), replicates))
    return from_replicates(value, drawn, len(features), centred=True)


def kernel_distances(features: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Unbiased squared MMD [R] of features [N, d] under counts [R, N] to reference [M, d], k(x, y) = (x.y / d + 1)^3.

    A sample is never paired with its own copies: they would bias the resample upwards.
    """
    x = features.astype(np.float64)
    y = reference.astype(np.float64)
    w = counts.astype(np.float64)
    d = x.shape[1]
    m = len(y)
    within = np.zeros(len(w))
    cross = np.zeros(len(w))
    constant = 0.0
    pairs = w.sum(1) ** 2 - (w**2).sum(1)
    for first in range(0, m, BLOCK):
        kernel = (y[first : first + BLOCK] @ y.T / d + 1) ** 3
        constant += kernel.sum() - np.trace(kernel, offset=first)
    for first in range(0, len(x), BLOCK):
        rows = x[first : first + BLOCK]
        part = w[:, first : first + BLOCK]
        kernel = (rows @ x.T / d + 1) ** 3
        own = np.arange(len(rows))
        kernel[own, first + own] = 0
        within += ((part @ kernel) * w).sum(1)
        cross += part @ ((rows @ y.T / d + 1) ** 3).sum(1)
    return within / pairs + constant / (m * (m - 1)) - 2 * cross / (w.sum(1) * m)


def precision_recall(features: np.ndarray, reference: np.ndarray, replicates: int) -> tuple[Metric, Metric]:
    """Improved precision and recall of features [N, d] against reference [M, d].

    Kynkäänniemi et al., NeurIPS 2019 (arXiv 1904.06991), k = 3. Precision: share of samples inside the union of balls
    around reference points that reach their 3rd nearest neighbour. Recall: with the roles exchanged. The intervals take
    the balls as given, since with repeated points the radii collapse.
    """
    if min(len(features), len(reference)) <= NEIGHBOURS:
        reason = f"precision and recall need more than {NEIGHBOURS} samples"
        return absent(reason), absent(reason)
    x = torch.from_numpy(features).double()
    y = torch.from_numpy(reference).double()
    precision = from_rate(find_inside(x, y), replicates)
    recall = from_rate(find_inside(y, x), replicates, stream=("reference",))
    return precision, recall


def find_inside(points: torch.Tensor, manifold: torch.Tensor) -> np.ndarray:
    """Which points [N, d] lie in a ball of the manifold's points [M, d]: bool [N].

    A ball's radius is the distance to the 3rd neighbour.
    """
    radii = torch.cat(
        [_cdist(block, manifold).kthvalue(NEIGHBOURS + 1, dim=1).values for block in manifold.split(BLOCK)]
    )
    return torch.cat([(_cdist(block, manifold) <= radii).any(1) for block in points.split(BLOCK)]).numpy()


def _cdist(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # The plain form: the faster one by matrix product does not give 0 for equal points.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


@contextlib.contextmanager
def _seeded(*parts: str | int) -> Iterator[None]:
    """torchmetrics draws from the global CPU generator: seeded inside, restored afterwards, no notice on buffers."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.default_generator.manual_seed(seeds.derive("eval", *parts))
        yield
