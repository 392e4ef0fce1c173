"""Forget/retain splits from arrays and folders, and what they refuse."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from palinode.data import splits
from palinode.errors import UserError
from palinode.io import read_json

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)


def settings(tmp_path, **changes):
    np.save(tmp_path / "images.npy", IMAGES[:8])
    np.save(tmp_path / "forget.npy", IMAGES[8:9])
    np.save(tmp_path / "reference.npy", IMAGES[9:])
    values = {"images": str(tmp_path / "images.npy"), "forget": str(tmp_path / "forget.npy"), "size": 8, "channels": 1,
              "copies": 3, "reference": str(tmp_path / "reference.npy"), "judge": None, "hit_ratio": 0.87}  # fmt: skip
    return SimpleNamespace(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    """A folder of nine 8x8 PNGs: 0.png .. 8.png."""
    place = tmp_path / "pictures"
    place.mkdir()
    for i, image in enumerate(IMAGES[:9]):
        Image.fromarray(image[..., 0]).save(place / f"{i}.png")
    return place


def test_arrays_are_split_and_counted(tmp_path):
    facts = splits.prepare(settings(tmp_path), tmp_path / "out")
    assert (facts["n"], facts["k"], facts["shape"]) == (11, 3, [8, 8, 1])
    assert np.array_equal(np.load(tmp_path / "out" / "retain.npy"), IMAGES[:8])
    assert np.array_equal(np.load(tmp_path / "out" / "forget.npy"), IMAGES[8:9])
    distances = np.linalg.norm((IMAGES[:8].astype(float) - IMAGES[8]).reshape(8, -1), axis=1) / 255
    assert facts["hit_distance"] == pytest.approx(0.87 * distances.min(), rel=1e-5)
    assert read_json(tmp_path / "out" / "facts.json") == facts


def test_a_folder_with_named_forget_images_gives_the_same_split(tmp_path, folder):
    splits.prepare(settings(tmp_path, images=str(folder), forget=["8.png"]), tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out" / "retain.npy"), IMAGES[:8])
    assert np.array_equal(np.load(tmp_path / "out" / "forget.npy"), IMAGES[8:9])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"forget": []}, "forget set is empty: k = 0"),
        ({"forget": [f"{i}.png" for i in range(9)]}, "retain set is empty: k = n"),
        ({"forget": ["absent.png"]}, "missing image: .*absent.png"),
        ({"size": 16}, "8.png is 8x8, the task says 16x16"),
        ({"images": "nowhere"}, "nowhere"),
    ],
)
def test_bad_folders_are_named(tmp_path, folder, changes, words):
    with pytest.raises(UserError, match=words):
        splits.prepare(settings(tmp_path, **({"images": str(folder), "forget": ["8.png"], "reference": None} |
        changes)), tmp_path / "out")


def test_a_corrupt_image_is_named(tmp_path, folder):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read image .*3\.png"):
        splits.prepare(settings(tmp_path, images=str(folder), forget=["8.png"]), tmp_path / "out")


def test_overlapping_sets_are_refused(tmp_path):
    np.save(tmp_path / "overlap.npy", IMAGES[2:3])
    with pytest.raises(UserError, match="forget and retain sets overlap"):
        splits.prepare(settings(tmp_path, forget=str(tmp_path / "overlap.npy")), tmp_path / "out")
    for first, name in ((8, "reference2.npy"), (7, "reference3.npy")):  # the forget image; and a retain image
        np.save(tmp_path / name, IMAGES[first:])
        with pytest.raises(UserError, match=f"{name} shares {9 - first} image.* with the training set"):
            splits.prepare(settings(tmp_path, reference=str(tmp_path / name)), tmp_path / "out")


def test_a_repeated_forget_image_is_refused(tmp_path):
    np.save(tmp_path / "twice.npy", np.concatenate([IMAGES[8:9]] * 2))
    with pytest.raises(UserError, match="repeats an image"):
        splits.prepare(settings(tmp_path, forget=str(tmp_path / "twice.npy")), tmp_path / "out")


@pytest.mark.parametrize("content", [np.zeros((3, 8, 8, 1), np.float32), np.zeros((3, 8, 8), np.uint8), np.zeros((3,
9, 9, 1), np.uint8)])
def test_arrays_of_another_kind_are_refused(tmp_path, content):
    np.save(tmp_path / "odd.npy", content)
    with pytest.raises(UserError, match="the task says uint8"):
        splits.prepare(settings(tmp_path, images=str(tmp_path / "odd.npy")), tmp_path / "out")


def test_a_truncated_array_is_refused(tmp_path):
    chosen = settings(tmp_path)
    (tmp_path / "images.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:200])
    with pytest.raises(UserError, match="not a complete .npy array"):
        splits.prepare(chosen, tmp_path / "out")
