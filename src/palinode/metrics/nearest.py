"""Whether generated images copy training images, judged by pixel distances to the nearest ones.

A fixed distance fails, because blank and blurred images are near to everything. Both scores here are ratios.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from palinode.core.errors import UserError

ALPHA = 0.5  # Carlini et al.; flagged when the score is below 1
NEIGHBOURS = 50  # Carlini et al.
NN_FLAGGED = 1 / 3  # Yoon et al. 2023, Gu et al. 2023; flagged when the ratio is below
LARGEST = 2**28  # pixel values of training images that are searched at most; as float64 they take 2 GiB
CHUNK = 256  # images at a time


def deduplicate(references: np.ndarray) -> np.ndarray:
    """Each distinct image once, in order of first appearance; uint8 [N, H, W, C]. Near-duplicates stay."""
    first = {image.tobytes(): i for i, image in reversed(list(enumerate(references)))}
    return references[sorted(first.values())]


def carlini_ratio(
    images: np.ndarray, references: np.ndarray, alpha: float = ALPHA, n: int = NEIGHBOURS, chunk: int = CHUNK
) -> np.ndarray:
    """l2(x, x_1) / (alpha mean of l2(x, y) over the n references y nearest to x), float64 [N]; a copy is below 1.

    Carlini et al. 2023 (arXiv 2301.13188), section on CIFAR-10. l2 is the root mean squared difference of pixels in
    [0, 1], x_1 the nearest reference. images, references: uint8 [N, H, W, C]. References are deduplicated first, since
    copies of x_1 among the neighbours would hide it. With fewer than n references n is lowered, with a warning;
    UserError for none.
    """
    return _carlini_scores(images, deduplicate(references), alpha, n, chunk)[0]


def too_large(values: int) -> str | None:
    """Why training images of so many pixel values are not searched, or None."""
    return f"more than {LARGEST} values of training images are not searched" if values > LARGEST else None


def audit(images: np.ndarray, training: np.ndarray, forget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images copy a training image, and which of them an image to forget: bool [N] each.

    By `carlini_ratio` among the distinct images of both sets. That the forget images are special is not used to find
    copies, only to name them.
    """
    references = deduplicate(np.concatenate([forget, training]))
    scores, positions = _carlini_scores(images, references, ALPHA, NEIGHBOURS, CHUNK)
    copied = scores < 1
    return copied, copied & (positions < len(deduplicate(forget)))


def nn_ratio(images: np.ndarray, references: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """l2 to the nearest over l2 to the second nearest of the deduplicated references, float64 [N] in [0, 1].

    A copy is below NN_FLAGGED. UserError for fewer than two distinct references.
    """
    distances, _ = find_nearest(images, deduplicate(references), 2, chunk)
    return distances[:, 0] / distances[:, 1]


def find_nearest(
    images: np.ndarray, references: np.ndarray, count: int, chunk: int = CHUNK
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared differences to the `count` nearest references, ascending, float64 [N, count], and their
    positions, int64 [N, count].

    Computed `chunk` images at a time, by matrix products of whole numbers. float64 holds these exactly, so the distance
    to a copy is exactly 0.
    """
    if not 1 <= count <= len(references):
        raise UserError(f"{len(references)} distinct reference image(s), at least {max(1, count)} wanted")
    y = _flatten(references)
    lengths = torch.einsum("nd,nd->n", y, y)  # without a second array of that size
    chunks = []
    for part in _flatten(images).split(chunk):
        squared = torch.addmm(lengths, part, y.T, alpha=-2) + part.square().sum(1, keepdim=True)
        chunks.append(squared.topk(count, largest=False))
    squared, positions = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return (squared / y.shape[1]).sqrt().numpy() / 255, positions.numpy()


def _carlini_scores(
    images: np.ndarray, references: np.ndarray, alpha: float, n: int, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """`carlini_ratio` for distinct references, and the position of the nearest, int64 [N]."""
    if len(references) < n:
        warnings.warn(f"{len(references)} distinct reference images: n lowered from {n}", stacklevel=3)
    distances, positions = find_nearest(images, references, min(n, len(references)), chunk)
    mean = distances.mean(1)
    scores = np.divide(distances[:, 0], alpha * mean, out=np.zeros(len(distances)), where=mean > 0)
    return scores, positions[:, 0]


def _flatten(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(images)).flatten(1).double()  # a copy: what is read is not writable
