"""The retained pictures nearest to each picture to forget."""

import numpy as np

from palinode.core.image_set import ImageSet

BLOCK = 256  # retained pictures compared at a time


def nearest_rows(retain: ImageSet, forget: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64 [F, K], distances float32 [F, K]) of the K = min(count, N) nearest of N pictures, the nearest first.

    retain: [N, ...]; forget: [F, ...]; distances: L2 in the unit of the pictures' own numbers. Of equal distances the
    first row comes first.
    """
    flat = forget.reshape(len(forget), -1).astype(np.float32)
    squares = np.empty((len(forget), len(retain)), np.float32)
    for first in range(0, len(retain), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(retain)))
        block = np.asarray(retain[rows]).reshape(len(rows), -1).astype(np.float32)
        for i, image in enumerate(flat):
            squares[i, rows] = ((block - image) ** 2).sum(1)
    chosen = np.argsort(squares, axis=1, kind="stable")[:, :count]
    return chosen, np.sqrt(np.take_along_axis(squares, chosen, axis=1))
