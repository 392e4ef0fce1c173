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
    chosen = np.empty((len(forget), 0), np.int64)
    squares = np.empty((len(forget), 0), np.float32)
    for first in range(0, len(retain), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(retain)))
        block = np.asarray(retain[rows]).reshape(len(rows), -1).astype(np.float32)
        # Beside the nearest of the blocks before, so that memory does not grow with the number of retained pictures.
        here = np.stack([((block - image) ** 2).sum(1) for image in flat])
        squares = np.hstack([squares, here])
        chosen = np.hstack([chosen, np.broadcast_to(rows, here.shape)])
        order = np.argsort(squares, axis=1, kind="stable")[:, :count]
        squares = np.take_along_axis(squares, order, axis=1)
        chosen = np.take_along_axis(chosen, order, axis=1)
    return chosen, np.sqrt(squares)
