"""The deletion setting: X holds n images, A the k of them to forget, X\\A the rest.

X itself is never stored: it is the retain array followed by `copies` copies of each forget image.
"""

import hashlib
import itertools
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from palinode.core.errors import UserError
from palinode.core.image_set import ImageSet
from palinode.core.io import read_array, write_array, write_json
from palinode.data import sources
from palinode.data.neighbours import nearest_rows
from palinode.params.bases import ImageData
from palinode.params.stage_settings import PrepareImageBase, PrepareImages

Shape = tuple[int, int, int]


class JoinedImages:
    """Several arrays of images one after the other, of which only the rows asked for are read."""

    def __init__(self, parts: list[np.ndarray]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.parts[0].shape[1:]), self.parts[0].dtype)
        owner = np.searchsorted(self.ends, rows, side="right")
        for number, part in enumerate(self.parts):
            own = owner == number
            start = self.ends[number] - len(part)
            images[own] = part[rows[own] - start]
        return images


def prepare_base(settings: PrepareImageBase, folder: Path) -> dict:
    """Write what an unconditional base is trained and checked on: train.npy, repeated.npy, reference.npy, the judge's.

    Returns metadata.json: copies of the repeated images, and the distance below which a sample is one of them.
    UserError when a set is empty, two share an image, or an image cannot be read.
    """
    data = settings.data
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test") if data.judge and not settings.oracle else ():
        write_labelled(Path(getattr(data.judge, part)), f"judge-{part}", _shape(data), folder)
    if not settings.trained:
        return {}
    train = _write_images(folder / "train.npy", *_read_all(data))
    metadata: dict[str, float] = {}
    known = _hashes(train)
    if data.repeated is not None and not settings.oracle:
        repeated = _read_stack(data.repeated.images, _shape(data))
        _check_apart(repeated, known, data.images)
        write_array(folder / "repeated.npy", repeated)
        nearest = nearest_distance(train, repeated)
        metadata = {"copies": data.repeated.copies, "hit_distance": data.repeated.hit_ratio * nearest}
        known |= _hashes(repeated)
    _write_reference(data, known, folder)
    write_json(folder / "metadata.json", metadata)
    return metadata


def prepare_task(settings: PrepareImages, folder: Path) -> dict:
    """Write retain.npy, forget.npy, neighbours.npy, reference.npy and metadata.json of a task; return the metadata.

    retain.npy holds X without any image of the forget set. A subject's own retain set adds the forget images of the
    other subjects. neighbours.npy, int64 [forget, K], holds rows of the retain set of the subject that an image is of.
    UserError when A is empty, X\\A is empty, A and X\\A or X and the reference share an image, or an
    image cannot be read. X\\A is written image by image: it may be larger than memory.
    """
    data = settings.data
    forget = _read_forget(settings)
    names = settings.forget if isinstance(settings.forget, list) else []
    folder.mkdir(parents=True, exist_ok=True)
    count, images, shape = _read_all(data, without=set(names))
    repeated = data.repeated is not None and settings.forget == data.repeated.images
    if data.repeated is not None and not repeated:
        # What the base repeats and the task does not forget belongs to the retain set, with all its copies.
        kept = _read_stack(data.repeated.images, shape)
        count += data.repeated.copies * len(kept)
        images = itertools.chain(images, *[kept] * data.repeated.copies)
    retain = _write_images(folder / "retain.npy", count, images, shape)
    known = _hashes(retain)
    _check_apart(forget, known, data.images)
    write_array(folder / "forget.npy", forget)
    _write_reference(data, known | _hashes(forget), folder)

    copies = data.repeated.copies if repeated and data.repeated is not None else 1
    everything = list(range(len(forget)))
    groups = [everything] if settings.together else [[i] for i in everything]
    subjects = []
    rows = []
    for group in groups:
        own = _retain_set(retain, forget, group, copies)
        nearest, distances = nearest_rows(own, forget[group], settings.neighbours)
        rows.append(nearest)
        least = round(float(distances.min()) / 255, 6)
        subjects.append(
            {
                "forget": group,
                "k": copies * len(group),
                "nearest_retain": least,
                "hit_distance": settings.hit_ratio * least,
            }
        )
    write_array(folder / "neighbours.npy", np.concatenate(rows))
    metadata = {
        "n": len(retain) + copies * len(forget),
        "copies": copies,
        "shape": list(shape),
        "reference": "reference" if data.reference else "retain",
        "subjects": subjects,
    }
    write_json(folder / "metadata.json", metadata)
    return metadata


def read_subject(folder: Path, subject: int, metadata: dict) -> tuple[ImageSet, np.ndarray]:
    """(X\\A, A) of one subject of a prepared task, uint8 [., H, W, C]."""
    retain = read_array(folder / "retain.npy")
    forget = np.asarray(read_array(folder / "forget.npy"))
    group = metadata["subjects"][subject]["forget"]
    return _retain_set(retain, forget, group, metadata["copies"]), forget[group]


def read_neighbours(folder: Path, subject: int, metadata: dict) -> np.ndarray:
    """Rows of a subject's retain set nearest to each of its images to forget, int64 [A, K]."""
    return np.asarray(read_array(folder / "neighbours.npy"))[metadata["subjects"][subject]["forget"]]


def _retain_set(retain: np.ndarray, forget: np.ndarray, group: list[int], copies: int) -> ImageSet:
    """X without a subject's images: what is retained of all, and the images of the other subjects."""
    others = np.delete(forget, group, axis=0)
    return JoinedImages([retain, *[others] * copies]) if len(others) else retain


def nearest_distance(retain: np.ndarray, forget: np.ndarray) -> float:
    """Smallest L2 distance, pixels in [0, 1], between any retain and any forget image."""
    _, distances = nearest_rows(retain, forget, 1)
    return round(float(distances.min()) / 255, 6)


def write_labelled(path: Path, part: str, shape: Shape, folder: Path, without: int | None = None) -> int:
    """<part>.npy and <part>-labels.npy from images with labels beside them, without one class; the number of classes.

    UserError unless images and labels match, and when there is no image of the class to leave out.
    """
    images = _read_stack(path, shape)
    labels = np.asarray(read_labels(path, len(images)), np.uint8)
    classes = int(labels.max()) + 1
    if without is not None:
        kept = labels != without
        if kept.all():
            raise UserError(f"{path}: no image has the class {without}")
        images = images[kept]
        labels = labels[kept]
    write_array(folder / f"{part}.npy", images)
    write_array(folder / f"{part}-labels.npy", labels)
    return classes


def read_labels(path: Path, count: int) -> np.ndarray:
    """The labels beside an array of `count` images; UserError when they do not match."""
    labels = sources.read_array(path.with_name(f"{path.stem}-labels.npy"))
    if labels.shape != (count,):
        raise UserError(f"{path}: {count} images, but labels of shape {list(labels.shape)}")
    return labels


def _shape(data: ImageData) -> Shape:
    return (data.size, data.size, data.channels)


def _read_all(data: ImageData, without: AbstractSet[str] = frozenset()) -> tuple[int, Iterator[np.ndarray], Shape]:
    """(count, images, shape) of a base's images, one at a time, but for the files named."""
    shape = _shape(data)
    if without:
        files = [path for path in sources.image_files(Path(data.images)) if path.name not in without]
        return len(files), (sources.read_image(path, shape) for path in files), shape
    count, images = sources.read(data.images, shape)
    return count, images, shape


def _write_images(path: Path, count: int, images: Iterator[np.ndarray], shape: Shape) -> np.ndarray:
    """Write images one by one, since a map of the file would die on a full disk; then map it."""
    if count == 0:
        raise UserError("the retain set is empty: k = n leaves nothing to keep")
    with open(path, "wb") as handle:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.writelines(image.tobytes() for image in images)
    return np.load(path, mmap_mode="r")


def _read_stack(path: str | Path, shape: Shape) -> np.ndarray:
    images = list(sources.read(path, shape)[1])
    if not images:
        raise UserError(f"{path} holds no image")
    return np.stack(images)


def _read_forget(settings: PrepareImages) -> np.ndarray:
    shape = _shape(settings.data)
    if isinstance(settings.forget, str):
        images = list(sources.read(settings.forget, shape)[1])
    else:
        folder = Path(settings.data.images)
        sources.image_files(folder)  # a missing folder is named before a missing file
        images = [sources.read_image(folder / name, shape) for name in settings.forget]
    if not images:
        raise UserError("the forget set is empty: k = 0 leaves nothing to unlearn")
    return np.stack(images)


def _check_apart(images: np.ndarray, known: set[bytes], where: str) -> None:
    hashes = _hashes(images)
    if len(hashes) < len(images):
        raise UserError("the forget set repeats an image: list each once and use `copies`")
    if hashes & known:
        raise UserError(f"forget and retain sets overlap: {len(hashes & known)} forget image(s) also in {where}")


def _write_reference(data: ImageData, known: set[bytes], folder: Path) -> None:
    if data.reference is None:
        return
    reference = _read_stack(data.reference, _shape(data))
    shared = len(_hashes(reference) & known)
    if shared:
        raise UserError(f"{data.reference} shares {shared} image(s) with the training set: keep it apart")
    write_array(folder / "reference.npy", reference)


def _hashes(images: np.ndarray) -> set[bytes]:
    return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images}
