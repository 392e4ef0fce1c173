"""Reading images: one .npy array, or a folder of image files. Always uint8 [N, H, W, C]."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from palinode.core.errors import UserError
from palinode.core.io import read_array

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name (a directory listing has no order of its own)."""
    if not folder.is_dir():
        raise UserError(f"no images at {folder}: put a .npy file or a folder of images there, or change the path")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
    if not files:
        raise UserError(f"no images ({', '.join(sorted(ENDINGS))}) in {folder}")
    return files


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """One file as uint8 [H, W, C]; UserError when it is damaged or of another size."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if shape[2] == 1 else "RGB"))
    except FileNotFoundError:
        raise UserError(f"missing image: {path}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read image {path}: {error}") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape != shape:
        raise UserError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, the task says {shape[1]}x{shape[0]}")
    return pixels


def read(path: str | Path, shape: tuple[int, int, int]) -> tuple[int, Iterator[np.ndarray]]:
    """(count, images) of a .npy file or a folder, one at a time, so that a large folder never fills the memory."""
    path = Path(path)
    if path.suffix == ".npy":
        array = read_array(path)
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != shape:
            raise UserError(
                f"{path} holds {array.dtype} {list(array.shape)}, the task says uint8 [N, {', '.join(map(str, shape))}]"
            )
        return len(array), iter(array)
    files = image_files(path)
    return len(files), (read_image(file, shape) for file in files)


def inspect(path: str | Path, shape: tuple[int, int, int]) -> int:
    """How many images there are, without reading them all; UserError as `read`, as far as the first image tells."""
    count, images = read(path, shape)
    next(images, None)
    return count
