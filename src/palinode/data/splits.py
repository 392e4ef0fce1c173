"""The deletion setting: X holds n images, A the k of them to forget, X\\A the rest.

X itself is never stored: it is the retain array followed by `copies` copies of each forget image.
"""

import hashlib
from pathlib import Path

import numpy as np

from palinode.data import sources
from palinode.errors import UserError
from palinode.io import write_array, write_json


def prepare(settings, folder: Path) -> dict:
    """Write retain.npy, forget.npy, reference.npy, the judge's arrays and facts.json into `folder`; return the facts.

    UserError when A is empty, X\\A is empty, A and X\\A or X and the reference share an image, or an image cannot be
    read. X\\A is written image by image: it may be larger than memory, and a map of it would die on a full disk.
    """
    shape = (settings.size, settings.size, settings.channels)
    forget = _read_forget(settings, shape)
    if isinstance(settings.forget, list):
        wanted = set(settings.forget)
        kept = [p for p in sources.image_files(Path(settings.images)) if p.name not in wanted]
        count, images = len(kept), (sources.read_image(p, shape) for p in kept)
    else:
        count, images = sources.read(settings.images, shape)
    if count == 0:
        raise UserError("the retain set is empty: k = n leaves nothing to keep")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "retain.npy", "wb") as handle:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(handle, header)
        for image in images:
            handle.write(image.tobytes())
    retain = np.load(folder / "retain.npy", mmap_mode="r")

    forgotten, kept_hashes = _hashes(forget), _hashes(retain)
    if len(forgotten) < len(forget):
        raise UserError("the forget set repeats an image: list each once and use `copies`")
    if forgotten & kept_hashes:
        raise UserError(
            f"forget and retain sets overlap: {len(forgotten & kept_hashes)} forget image(s) also in {settings.images}"
        )
    write_array(folder / "forget.npy", forget)
    if settings.reference is not None:
        reference = np.stack(list(sources.read(settings.reference, shape)[1]))
        if shared := len(_hashes(reference) & (forgotten | kept_hashes)):
            raise UserError(f"{settings.reference} shares {shared} image(s) with the training set: keep it apart")
        write_array(folder / "reference.npy", reference)
    for part in ("train", "test") if settings.judge else ():
        write_labelled(Path(getattr(settings.judge, part)), f"judge-{part}", shape, folder)

    nearest = nearest_distance(retain, forget)
    k = settings.copies * len(forget)
    facts = {
        "n": count + k, "k": k, "copies": settings.copies, "shape": list(shape), "nearest_retain": nearest,
        "hit_distance": settings.hit_ratio * nearest, "reference": "reference" if settings.reference else "retain",
    }  # fmt: skip
    write_json(folder / "facts.json", facts)
    return facts


def nearest_distance(retain: np.ndarray, forget: np.ndarray) -> float:
    """Smallest L2 distance, pixels in [0, 1], between any retain and any forget image."""
    best = np.inf
    for image in forget.reshape(len(forget), -1).astype(np.float32):
        for first in range(0, len(retain), 256):
            block = retain[first : first + 256].reshape(-1, image.size).astype(np.float32)
            best = min(best, float(np.sqrt(((block - image) ** 2).sum(1).min())) / 255)
    return round(best, 6)


def _read_forget(settings, shape: tuple[int, int, int]) -> np.ndarray:
    if isinstance(settings.forget, str):
        images = list(sources.read(settings.forget, shape)[1])
    else:
        sources.image_files(Path(settings.images))  # a missing folder is named before a missing file
        images = [sources.read_image(Path(settings.images) / name, shape) for name in settings.forget]
    if not images:
        raise UserError("the forget set is empty: k = 0 leaves nothing to unlearn")
    return np.stack(images)


def _hashes(images: np.ndarray) -> set[bytes]:
    return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images}


def write_labelled(path: Path, part: str, shape: tuple[int, int, int], folder: Path) -> None:
    """<part>.npy and <part>-labels.npy from images with labels beside them; UserError unless the two match."""
    images = np.stack(list(sources.read(path, shape)[1]))
    labels = sources.read_array(path.with_name(f"{path.stem}-labels.npy"))
    if labels.shape != (len(images),):
        raise UserError(f"{path}: {len(images)} images, but labels of shape {list(labels.shape)}")
    write_array(folder / f"{part}.npy", images)
    write_array(folder / f"{part}-labels.npy", np.asarray(labels, np.uint8))
