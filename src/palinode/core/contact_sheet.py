"""Contact sheets: many small images in one PNG."""

from pathlib import Path

import numpy as np

from palinode.core.io import atomic


def sheet(images: np.ndarray, columns: int = 16, gap: int = 1) -> np.ndarray:
    """uint8 [N, H, W, C] tiled row by row into one uint8 [h, w, C], on grey."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    tiles = np.full((rows * columns, height + gap, width + gap, channels), 128, np.uint8)
    tiles[:count, :height, :width] = images
    tiles = tiles.reshape(rows, columns, height + gap, width + gap, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * (height + gap), columns * (width + gap), channels)


def write_png(path: Path, image: np.ndarray, scale: int = 1) -> None:
    """Write uint8 [h, w, 1 or 3], each pixel `scale` times enlarged, without metadata."""
    from PIL import Image

    image = image.repeat(scale, 0).repeat(scale, 1)
    with atomic(path) as temporary:
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(temporary, format="PNG", optimize=True)
