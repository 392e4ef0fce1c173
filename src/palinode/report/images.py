"""Small image sheets of paired samples, as PNG bytes."""

import base64
import io as textio

import numpy as np

from palinode import io
from palinode.report.collect import Row, Task

COLUMNS = 16
LARGEST = 64  # px shown per image; larger images are reduced, which keeps the page small


def samples(row: Row) -> np.ndarray | None:
    """The row's samples uint8 [N,H,W,C] (first seed, memory-mapped); None for an absent cell."""
    cell = row.cells[0]
    return None if cell.absent else io.read_array(cell.folder / "samples" / "samples.npy")


def hits(task: Task, images: np.ndarray) -> np.ndarray:
    """Whether each image [N,H,W,C] lies within the hit distance (L2, pixels in [0,1]) of a forget image -> bool [N]."""
    folder = task.root / "out" / "data" / task.name
    distance = io.read_json(folder / "facts.json").get("hit_distance")
    if distance is None:
        return np.zeros(len(images), dtype=bool)
    forget = np.asarray(io.read_array(folder / "forget.npy"), dtype=np.float32).reshape(-1, images[0].size) / 255
    flat = np.asarray(images, dtype=np.float32).reshape(len(images), -1) / 255
    nearest = np.min([((flat - image) ** 2).sum(axis=1) for image in forget], axis=0)
    return np.sqrt(nearest) < distance


def paired_rows(task: Task) -> list[Row]:
    """Base, every unlearning row, oracle: those that have samples, all from the same noise."""
    rows = [task.row("base"), *(row for row in task.rows if not row.reference), task.row("oracle")]
    return [row for row in rows if samples(row) is not None]


def strata(task: Task, count: int = COLUMNS) -> list[tuple[str, int, list[str]]]:
    """(name, index of its first sample, its first `count` prompts) of every stratum of a concept task."""
    written, found, first = io.read_json(task.root / "out" / "data" / task.name / "strata.json"), [], 0
    for name, captions in (written["forget"] | written["keep"]).items():
        found.append((name, first, [caption["text"] for caption in captions[:count]]))
        first += len(captions)
    return found


def columns(task: Task, count: int = COLUMNS, marked: int = 2) -> list[int]:
    """Sample indices to show: up to `marked` that the base draws as the forget image, then the first others."""
    base = samples(task.row("base"))
    hit = hits(task, base)
    first = np.flatnonzero(hit)[:marked].tolist()
    return first + np.flatnonzero(~hit)[: count - len(first)].tolist()


def shrink(images: np.ndarray) -> np.ndarray:
    """Reduce [N,H,W,C] by a whole-number box mean to at most LARGEST px; smaller images are returned as they are."""
    factor = -(-max(images.shape[1:3]) // LARGEST)
    if factor == 1:
        return images
    height, width = (size // factor for size in images.shape[1:3])
    cut = images[:, : height * factor, : width * factor].astype(np.float32)
    return np.rint(cut.reshape(len(images), height, factor, width, factor, -1).mean(axis=(2, 4))).astype(np.uint8)


def strip(images: np.ndarray, gap: int = 1, shade: int = 128) -> np.ndarray:
    """Images uint8 [N,H,W,C] side by side -> [H, N*(W+gap)-gap, C]."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=shade)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def paired_sheet(task: Task, row: Row, chosen: list[int], gap: int = 1) -> bytes:
    """base | row | absolute difference (three lines), the same noise down a column, as PNG bytes."""
    base, after = (shrink(np.asarray(samples(which)[chosen])) for which in (task.row("base"), row))
    difference = np.abs(base.astype(np.int16) - after.astype(np.int16)).astype(np.uint8)
    lines = [np.pad(strip(images, gap), ((0, gap), (0, 0), (0, 0)), constant_values=128)
             for images in (base, after, difference)]
    return png(np.concatenate(lines, axis=0)[:-gap])


def png(image: np.ndarray) -> bytes:
    """Encode uint8 [H,W,1|3] as PNG; the bytes carry no date and no software name."""
    from PIL import Image

    buffer = textio.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
