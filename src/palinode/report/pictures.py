"""The run's samples as small pictures: which ones are shown, and how they become PNG bytes."""

import base64
import io as textio
from pathlib import Path

import numpy as np

from palinode.core import io
from palinode.report.collect import SEQUENTIAL, Row, Task

SHOWN = 16  # samples of a row
MARKED = 2  # of these, at most as many that the base draws as a forget image
LARGEST = 64  # px shown per image; larger images are reduced, which keeps the page small
GREY = 128  # between images
EMPTY = np.full((1, 1, 3), GREY, np.uint8)  # where there is no picture to show


def read_samples(task: Task, row: Row) -> np.ndarray | None:
    """The row's samples uint8 [N,H,W,C] of its first subject and seed, memory-mapped; None for an absent cell."""
    cell = row.cells[0]
    if cell.absent or cell.subject == SEQUENTIAL:
        return None
    return io.read_array(find_samples(task, row) / "samples.npy")


def find_samples(task: Task, row: Row) -> Path:
    """The folder with the samples of a row's first cell.

    Those of a reference are drawn apart from its evaluation; of an images task they serve all subjects.
    """
    cell = row.cells[0]
    if not row.reference:
        return cell.folder / "samples"
    folder = task.root / "out/references" / task.name
    return folder / row.name if task.kind == "images" else folder / cell.subject / row.name


def read_base_samples(task: Task) -> np.ndarray:
    samples = read_samples(task, task.row("base"))
    assert samples is not None, "a base is never absent"
    return samples


def list_paired_rows(task: Task) -> list[tuple[Row, np.ndarray]]:
    """Base, every unlearning row, oracle: those that have samples, with these, all from the same noise."""
    rows = [task.row("base"), *task.unlearned, task.row("oracle")]
    pairs = [(row, read_samples(task, row)) for row in rows]
    return [(row, samples) for row, samples in pairs if samples is not None]


def find_hits(task: Task, images: np.ndarray) -> np.ndarray:
    """Whether each image [N,H,W,C] lies within the hit distance (L2, pixels in [0,1]) of a forget image -> bool [N].

    The forget images are those of the subject shown.
    """
    folder = task.root / "out/tasks" / task.name
    subject = io.read_json(folder / "metadata.json")["subjects"][int(task.row("base").cells[0].subject)]
    chosen = io.read_array(folder / "forget.npy")[subject["forget"]]
    forget = np.asarray(chosen, dtype=np.float32).reshape(len(chosen), -1) / 255
    flat = np.asarray(images, dtype=np.float32).reshape(len(images), -1) / 255
    nearest = np.min([((flat - image) ** 2).sum(axis=1) for image in forget], axis=0)
    return np.sqrt(nearest) < subject["hit_distance"]


def choose_samples(task: Task) -> list[int]:
    """Indices to show: up to MARKED that the base draws as the forget image, then the first others."""
    hit = find_hits(task, read_base_samples(task))
    first = np.flatnonzero(hit)[:MARKED].tolist()
    return first + np.flatnonzero(~hit)[: SHOWN - len(first)].tolist()


def list_prompt_sets(task: Task) -> list[tuple[str, int, list[str]]]:
    """(name, index of its first sample, its first SHOWN prompts) of every prompt set of a concept task's subject."""
    folder = task.root / "out/tasks" / task.name / task.row("base").cells[0].subject
    written = io.read_json(folder / "prompts/prompt_sets.json")
    sets = []
    first = 0
    for name, captions in (written["forget"] | written["retain"]).items():
        sets.append((name, first, [caption["text"] for caption in captions[:SHOWN]]))
        first += len(captions)
    return sets


def shrink(images: np.ndarray) -> np.ndarray:
    """Reduce [N,H,W,C] by a whole-number box mean to at most LARGEST px; smaller images are returned as they are."""
    factor = -(-max(images.shape[1:3]) // LARGEST)
    if factor == 1:
        return images
    height, width = (size // factor for size in images.shape[1:3])
    cut = images[:, : height * factor, : width * factor].astype(np.float32)
    return np.rint(cut.reshape(len(images), height, factor, width, factor, -1).mean(axis=(2, 4))).astype(np.uint8)


def join_across(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images uint8 [N,H,W,C] side by side on grey -> [H, N*(W+gap)-gap, C]."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=GREY)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def draw_paired_sheet(base: np.ndarray, after: np.ndarray, gap: int = 1) -> bytes:
    """base | row | absolute difference (three lines), the same noise down a column, as PNG bytes. Both [N,H,W,C]."""
    before = shrink(base)
    changed = shrink(after)
    difference = np.abs(before.astype(np.int16) - changed.astype(np.int16)).astype(np.uint8)
    below = ((0, gap), (0, 0), (0, 0))
    lines = [np.pad(join_across(images, gap), below, constant_values=GREY) for images in (before, changed, difference)]
    return encode_png(np.concatenate(lines, axis=0)[:-gap])


def tile(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images uint8 [rows, columns, H, W, C] on grey -> [h, w, C]."""
    lines = [join_across(line, gap) for line in images]
    padded = [np.pad(line, ((0, gap), (0, 0), (0, 0)), constant_values=GREY) for line in lines]
    return np.concatenate(padded, axis=0)[:-gap]


def read_sheet(folder: Path, stem: str) -> str | None:
    """A sheet as a data URI, kept as an array [rows, columns, H, W, C] or as a PNG; None if there is neither."""
    array = folder / f"{stem}.npy"
    if array.exists():
        return data_uri(encode_png(tile(io.read_array(array))))
    file = folder / f"{stem}.png"
    return data_uri(file.read_bytes()) if file.exists() else None


def stack_files(paths: list[Path], gap: int = 2) -> bytes:
    """PNG files below one another on grey, as one."""
    from PIL import Image

    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    width = max(image.shape[1] for image in images)
    padded = [np.pad(image, ((0, gap), (0, width - image.shape[1]), (0, 0)), constant_values=GREY) for image in images]
    return encode_png(np.concatenate(padded, axis=0)[:-gap])


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 [H,W,1|3] as PNG; the bytes carry no date and no software name."""
    from PIL import Image

    buffer = textio.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
