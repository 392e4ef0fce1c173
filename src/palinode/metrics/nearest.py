"""Whether generated images copy training images, judged by distances to the nearest ones, in pixels.

A fixed distance fails, because blank and blurred images are near to everything; both scores here are ratios.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from palinode.errors import UserError

ALPHA, NEIGHBOURS = 0.5, 50  # Carlini et al.; flagged when the score is below 1
NN_FLAGGED = 1 / 3  # Yoon et al. 2023, Gu et al. 2023; flagged when the ratio is below
LARGEST = 2**28  # pixel values of training images that are searched at most: 2 GiB in float64


def deduplicate(references: np.ndarray) -> np.ndarray:
    """Each distinct image once, in order of first appearance; uint8 [N, H, W, C]. Near-duplicates stay."""
    first = {image.tobytes(): i for i, image in reversed(list(enumerate(references)))}
    return references[sorted(first.values())]


def carlini_ratio(
    images: np.ndarray, references: np.ndarray, alpha: float = ALPHA, n: int = NEIGHBOURS, chunk: int = 256
) -> np.ndarray:
    """l2(x, x_1) / (alpha mean of l2(x, y) over the n references y nearest to x), float64 [N]; a copy is below 1.

    Carlini et al. 2023 (arXiv 2301.13188), section on CIFAR-10; l2 is the root mean squared difference, pixels in
    [0, 1], x_1 the nearest reference. images, references: uint8 [N, H, W, C], the latter deduplicated first, since
    copies of x_1 among the neighbours would hide it. With fewer than n references n is lowered, with a warning;
    UserError for none.
    """
    return _ratio(images, deduplicate(references), alpha, n, chunk)[0]


def too_large(training: np.ndarray) -> str | None:
    """Why these training images are not searched, or None."""
    return f"more than {LARGEST} values of training images are not searched" if training.size > LARGEST else None


def audit(images: np.ndarray, training: np.ndarray, forget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images copy a training image, and which of them an image to forget: bool [N] each.

    By `carlini_ratio` among the distinct images of both sets: that the forget images are special is not used to find
    copies, only to name them.
    """
    scores, which = _ratio(images, deduplicate(np.concatenate([forget, training])), ALPHA, NEIGHBOURS, 256)
    return scores < 1, (scores < 1) & (which < len(deduplicate(forget)))


def nn_ratio(images: np.ndarray, references: np.ndarray, chunk: int = 256) -> np.ndarray:
    """l2 to the nearest over l2 to the second nearest of the deduplicated references, float64 [N] in [0, 1].

    A copy is below NN_FLAGGED. UserError for fewer than two distinct references.
    """
    near, _ = nearest(images, deduplicate(references), 2, chunk)
    return near[:, 0] / near[:, 1]


def nearest(images: np.ndarray, references: np.ndarray, count: int, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared differences to the `count` nearest references, ascending, float64 [N, count], and their
    positions, int64 [N, count].

    Computed `chunk` images at a time, by matrix products of whole numbers, which float64 holds exactly: the distance to
    a copy is exactly 0.
    """
    if not 1 <= count <= len(references):
        raise UserError(f"{len(references)} distinct reference image(s), at least {max(1, count)} wanted")
    y, found = _flat(references), []
    lengths = torch.einsum("nd,nd->n", y, y)  # without a second array of that size
    for part in _flat(images).split(chunk):
        squared = torch.addmm(lengths, part, y.T, alpha=-2) + part.square().sum(1, keepdim=True)
        found.append(squared.topk(count, largest=False))
    squared, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return (squared / y.shape[1]).sqrt().numpy() / 255, indices.numpy()


def _ratio(
    images: np.ndarray, references: np.ndarray, alpha: float, n: int, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """`carlini_ratio` for distinct references, and the position of the nearest, int64 [N]."""
    if len(references) < n:
        warnings.warn(f"{len(references)} distinct reference images: n lowered from {n}", stacklevel=3)
    near, which = nearest(images, references, min(n, len(references)), chunk)
    mean = near.mean(1)
    return np.divide(near[:, 0], alpha * mean, out=np.zeros(len(near)), where=mean > 0), which[:, 0]


def _flat(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(images)).flatten(1).double()  # a copy: what is read is not writable
