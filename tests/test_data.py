"""Training sets of bases and splits of tasks, from arrays and folders, and what they refuse."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from palinode.core.errors import UserError
from palinode.core.images import to_model
from palinode.core.io import read_json
from palinode.data import splits
from palinode.data.splits import JoinedImages
from palinode.params.stage_settings import PrepareImageBase, PrepareImages
from palinode.training.batches import ImageBatches

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
LABELS = np.arange(8, dtype=np.uint8) % 3


def write_arrays(tmp_path):
    """Eight images, a ninth that is repeated, three to compare with, and labels of the eight."""
    arrays = {"images": IMAGES[:8], "images-labels": LABELS, "forget": IMAGES[8:9], "reference": IMAGES[9:]}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)


def image_data(tmp_path, **changes) -> dict:
    """The block `data` of a base that has seen images.npy and, three times, forget.npy."""
    values = {
        "images": str(tmp_path / "images.npy"),
        "repeated": {"images": str(tmp_path / "forget.npy"), "copies": 3},
        "size": 8,
        "channels": 1,
        "reference": str(tmp_path / "reference.npy"),
    }
    return values | changes


def task(tmp_path, *, forget=None, together=True, **changes) -> PrepareImages:
    """Forget forget.npy, unless other images are named. changes: to the block `data`."""
    write_arrays(tmp_path)
    return PrepareImages(
        root_seed=1,
        name="test",
        data=image_data(tmp_path, **changes),
        forget=str(tmp_path / "forget.npy") if forget is None else forget,
        together=together,
        hit_ratio=0.87,
        neighbours=2,
    )


def base(tmp_path, *, trained=True, oracle=False, **changes) -> PrepareImageBase:
    """changes: to the block `data`."""
    write_arrays(tmp_path)
    data = image_data(tmp_path, **changes)
    return PrepareImageBase(root_seed=1, name="test", kind="unconditional", data=data, trained=trained, oracle=oracle)


@pytest.fixture
def folder(tmp_path):
    """A folder of nine 8x8 PNGs: 0.png .. 8.png."""
    place = tmp_path / "pictures"
    place.mkdir()
    for i, image in enumerate(IMAGES[:9]):
        Image.fromarray(image[..., 0]).save(place / f"{i}.png")
    return place


def of_folder(folder, **changes) -> dict:
    """The changes to `data` for a base that has seen a folder of images."""
    return {"images": str(folder), "repeated": None} | changes


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest L2 distance between two sets of images, pixels in [0, 1]."""
    differences = first[:, None].astype(float) - second[None]
    return float(np.linalg.norm(differences.reshape(len(first), len(second), -1), axis=2).min() / 255)


# A task


def test_arrays_are_split_and_counted(tmp_path):
    metadata = splits.prepare_task(task(tmp_path), tmp_path / "out")
    (subject,) = metadata["subjects"]
    assert (metadata["n"], metadata["copies"], metadata["shape"]) == (11, 3, [8, 8, 1])
    assert (subject["k"], subject["forget"]) == (3, [0])
    assert metadata["reference"] == "reference"
    assert np.array_equal(np.load(tmp_path / "out/retain.npy"), IMAGES[:8])
    assert np.array_equal(np.load(tmp_path / "out/forget.npy"), IMAGES[8:9])
    assert np.array_equal(np.load(tmp_path / "out/reference.npy"), IMAGES[9:])
    nearest = distance(IMAGES[:8], IMAGES[8:9])
    assert subject["nearest_retain"] == pytest.approx(nearest, rel=1e-5)
    assert subject["hit_distance"] == pytest.approx(0.87 * nearest, rel=1e-5)
    assert read_json(tmp_path / "out/metadata.json") == metadata


def test_without_a_reference_the_retained_images_are_it(tmp_path):
    metadata = splits.prepare_task(task(tmp_path, reference=None), tmp_path / "out")
    assert metadata["reference"] == "retain"
    assert not (tmp_path / "out/reference.npy").exists()


def test_images_that_the_base_did_not_repeat_count_once(tmp_path):
    np.save(tmp_path / "other.npy", IMAGES[9:10])
    settings = task(tmp_path, forget=str(tmp_path / "other.npy"), reference=None)
    metadata = splits.prepare_task(settings, tmp_path / "out")
    assert (metadata["n"], metadata["copies"], metadata["subjects"][0]["k"]) == (12, 1, 1)
    retained = np.concatenate([IMAGES[:8], *[IMAGES[8:9]] * 3])
    assert np.array_equal(np.load(tmp_path / "out/retain.npy"), retained)


def test_a_folder_with_named_forget_images_gives_the_same_split(tmp_path, folder):
    splits.prepare_task(task(tmp_path, forget=["8.png"], **of_folder(folder)), tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out/retain.npy"), IMAGES[:8])
    assert np.array_equal(np.load(tmp_path / "out/forget.npy"), IMAGES[8:9])


@pytest.mark.parametrize("together", [True, False])
def test_named_images_are_one_subject_or_several(tmp_path, folder, together):
    settings = task(tmp_path, forget=["2.png", "5.png", "8.png"], together=together, **of_folder(folder))
    metadata = splits.prepare_task(settings, tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out/retain.npy"), IMAGES[[0, 1, 3, 4, 6, 7]])
    groups = [[0, 1, 2]] if together else [[0], [1], [2]]
    assert [subject["forget"] for subject in metadata["subjects"]] == groups
    assert [subject["k"] for subject in metadata["subjects"]] == [len(group) for group in groups]


def test_a_subject_retains_the_forget_images_of_the_others(tmp_path, folder):
    names = ["2.png", "5.png", "8.png"]
    settings = task(tmp_path, forget=names, together=False, **of_folder(folder))
    metadata = splits.prepare_task(settings, tmp_path / "out")
    own = [2, 5, 8]
    for number, subject in enumerate(metadata["subjects"]):
        retain, forget = splits.read_subject(tmp_path / "out", number, metadata)
        others = [i for i in own if i != own[number]]
        expected = IMAGES[[0, 1, 3, 4, 6, 7, *others]]
        assert np.array_equal(forget, IMAGES[[own[number]]])
        assert len(retain) == len(expected) == metadata["n"] - subject["k"]
        assert np.array_equal(retain[np.arange(len(retain))], expected)
        assert subject["nearest_retain"] == pytest.approx(distance(expected, np.asarray(forget)), rel=1e-5)


def test_other_subjects_are_retained_as_often_as_they_were_shown(tmp_path):
    np.save(tmp_path / "two.npy", IMAGES[8:10])
    both = {"images": str(tmp_path / "two.npy"), "copies": 3}
    settings = task(tmp_path, forget=both["images"], together=False, repeated=both, reference=None)
    metadata = splits.prepare_task(settings, tmp_path / "out")
    assert metadata["n"] == 8 + 3 * 2
    retain, forget = splits.read_subject(tmp_path / "out", 1, metadata)
    assert np.array_equal(retain[np.arange(len(retain))], IMAGES[[*range(8), 8, 8, 8]])
    assert np.array_equal(forget, IMAGES[9:10])


def test_one_subject_reads_its_files_as_they_are(tmp_path):
    metadata = splits.prepare_task(task(tmp_path), tmp_path / "out")
    retain, forget = splits.read_subject(tmp_path / "out", 0, metadata)
    assert isinstance(retain, np.memmap)
    assert np.array_equal(retain, IMAGES[:8])
    assert np.array_equal(forget, IMAGES[8:9])


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
    chosen = {"forget": ["8.png"]} | of_folder(folder, reference=None) | changes
    with pytest.raises(UserError, match=words):
        splits.prepare_task(task(tmp_path, **chosen), tmp_path / "out")


def test_a_corrupt_image_is_named(tmp_path, folder):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read image .*3\.png"):
        splits.prepare_task(task(tmp_path, forget=["8.png"], **of_folder(folder)), tmp_path / "out")


def test_overlapping_sets_are_refused(tmp_path):
    np.save(tmp_path / "overlap.npy", IMAGES[2:3])
    with pytest.raises(UserError, match="forget and retain sets overlap"):
        splits.prepare_task(task(tmp_path, forget=str(tmp_path / "overlap.npy")), tmp_path / "out")
    for first, name in ((8, "reference2.npy"), (7, "reference3.npy")):  # the forget image; and a retain image
        np.save(tmp_path / name, IMAGES[first:])
        with pytest.raises(UserError, match=f"{name} shares {9 - first} image.* with the training set"):
            splits.prepare_task(task(tmp_path, reference=str(tmp_path / name)), tmp_path / "out")


def test_a_repeated_forget_image_is_refused(tmp_path):
    np.save(tmp_path / "twice.npy", np.concatenate([IMAGES[8:9]] * 2))
    with pytest.raises(UserError, match="repeats an image"):
        splits.prepare_task(task(tmp_path, forget=str(tmp_path / "twice.npy")), tmp_path / "out")


@pytest.mark.parametrize(
    "content", [np.zeros((3, 8, 8, 1), np.float32), np.zeros((3, 8, 8), np.uint8), np.zeros((3, 9, 9, 1), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(tmp_path, content):
    np.save(tmp_path / "odd.npy", content)
    with pytest.raises(UserError, match="the task says uint8"):
        splits.prepare_task(task(tmp_path, images=str(tmp_path / "odd.npy")), tmp_path / "out")


def test_a_truncated_array_is_refused(tmp_path):
    settings = task(tmp_path)
    (tmp_path / "images.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:200])
    with pytest.raises(UserError, match="not a complete .npy array"):
        splits.prepare_task(settings, tmp_path / "out")


# Several arrays as one


def test_joined_images_are_read_like_one_array():
    joined = JoinedImages([IMAGES[:3], IMAGES[3:4], IMAGES[4:]])
    rows = np.random.default_rng(1).integers(0, len(IMAGES), 50)
    assert len(joined) == len(IMAGES)
    assert np.array_equal(joined[rows], IMAGES[rows])
    assert joined[rows[:0]].shape == (0, 8, 8, 1)


def test_a_step_sees_the_same_images_joined_or_not():
    joined = JoinedImages([IMAGES[:3], IMAGES[3:]])
    batches = [ImageBatches(images, IMAGES[:1], 1000, 16, 1, "cpu", ("test",)) for images in (IMAGES, joined)]
    whole, parts = [next(make(3)) for make in batches]
    assert whole.x.equal(parts.x)
    assert set(map(bytes, whole.x.numpy())) <= set(map(bytes, to_model(IMAGES).numpy()))


# A base


def test_a_base_sees_its_images_and_the_repeated_ones(tmp_path):
    metadata = splits.prepare_base(base(tmp_path), tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out/train.npy"), IMAGES[:8])
    assert np.array_equal(np.load(tmp_path / "out/repeated.npy"), IMAGES[8:9])
    assert np.array_equal(np.load(tmp_path / "out/reference.npy"), IMAGES[9:])
    assert metadata["copies"] == 3
    assert metadata["hit_distance"] == pytest.approx(0.87 * distance(IMAGES[:8], IMAGES[8:9]), rel=1e-5)
    assert read_json(tmp_path / "out/metadata.json") == metadata


def test_an_oracle_sees_the_same_but_for_the_repeated_images(tmp_path):
    splits.prepare_base(base(tmp_path), tmp_path / "base")
    metadata = splits.prepare_base(base(tmp_path, oracle=True), tmp_path / "oracle")
    assert metadata == {}
    assert not (tmp_path / "oracle/repeated.npy").exists()
    for name in ("train", "reference"):
        digests = [hashlib.sha256((tmp_path / f"{role}/{name}.npy").read_bytes()) for role in ("base", "oracle")]
        assert digests[0].digest() == digests[1].digest()


@pytest.mark.parametrize(("trained", "oracle"), [(True, False), (True, True), (False, False)])
def test_the_judges_images_come_with_the_base(tmp_path, trained, oracle):
    """A finished base has them too, and nothing else; an oracle has no judge of its own."""
    judge = dict.fromkeys(("train", "test"), str(tmp_path / "images.npy"))
    splits.prepare_base(base(tmp_path, judge=judge, trained=trained, oracle=oracle), tmp_path / "out")
    assert (tmp_path / "out/train.npy").exists() == trained
    for part in ("judge-train", "judge-test"):
        assert (tmp_path / f"out/{part}.npy").exists() != oracle
        if not oracle:
            assert np.array_equal(np.load(tmp_path / f"out/{part}.npy"), IMAGES[:8])
            assert np.array_equal(np.load(tmp_path / f"out/{part}-labels.npy"), LABELS)


def test_a_base_refuses_images_that_are_in_two_sets(tmp_path):
    np.save(tmp_path / "overlap.npy", IMAGES[2:3])
    repeated = {"images": str(tmp_path / "overlap.npy")}
    with pytest.raises(UserError, match="overlap: 1 forget image"):
        splits.prepare_base(base(tmp_path, repeated=repeated), tmp_path / "out")
    np.save(tmp_path / "reference2.npy", IMAGES[8:])
    with pytest.raises(UserError, match=r"reference2.npy shares 1 image.* with the training set"):
        splits.prepare_base(base(tmp_path, reference=str(tmp_path / "reference2.npy")), tmp_path / "out")


# Labelled images


def test_labelled_images_may_leave_one_class_out(tmp_path):
    write_arrays(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    classes = splits.write_labelled(tmp_path / "images.npy", "train", (8, 8, 1), out, without=1)
    assert classes == 3
    assert np.array_equal(np.load(out / "train.npy"), IMAGES[:8][LABELS != 1])
    assert np.array_equal(np.load(out / "train-labels.npy"), LABELS[LABELS != 1])
    with pytest.raises(UserError, match="no image has the class 3"):
        splits.write_labelled(tmp_path / "images.npy", "train", (8, 8, 1), out, without=3)


def test_labels_must_match_their_images(tmp_path):
    write_arrays(tmp_path)
    np.save(tmp_path / "images-labels.npy", LABELS[:3])
    with pytest.raises(UserError, match=r"8 images, but labels of shape \[3\]"):
        splits.write_labelled(tmp_path / "images.npy", "train", (8, 8, 1), tmp_path)
