"""The digits and clothes in data/: what they are, and that they can be rebuilt to the same bytes."""

import gzip
import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from project import ROOT, repository_files

from palinode import params
from palinode.core.io import absence

DATA = ROOT / "data"
SPLIT_SIZES = {"train": 600, "judge-train": 600, "reference": 200, "judge-test": 100}  # images a class


def shipped() -> dict[str, str]:
    """File below data/ -> SHA-256 of its content, of all but the two that describe the rest."""
    names = {path.relative_to(DATA).as_posix(): path for path in repository_files() if path.is_relative_to(DATA)}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(names.items())
        if path.name not in ("README.md", "build.py")
    }


def test_data_is_what_its_readme_says():
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)$", (DATA / "README.md").read_text(), re.MULTILINE)
    assert {name: digest for digest, name in listed} == shipped()
    for part, most in {"mnist": 4_000_000, "fashion": 10_000, "emoji": 2_000_000}.items():
        assert 0 < sum((DATA / name).stat().st_size for name in shipped() if name.startswith(part)) <= most


def test_splits_are_disjoint_and_balanced():
    splits = json.loads((DATA / "mnist/indices.json").read_text())
    used = [(split["part"], index) for split in splits.values() for index in split["indices"]]
    assert len(used) == len(set(used))
    for name, per_class in SPLIT_SIZES.items():
        images, labels = (np.load(DATA / f"mnist/{name}{end}.npy") for end in ("", "-labels"))
        assert images.shape == (10 * per_class, 16, 16, 1) and images.dtype == labels.dtype == np.uint8
        assert np.bincount(labels).tolist() == [per_class] * 10
        assert len(splits[name]["indices"]) == len(labels)
    for name in ("tshirt", "boot"):
        image = np.load(DATA / f"fashion/{name}.npy")
        assert image.shape == (1, 16, 16, 1) and image.dtype == np.uint8


@pytest.fixture
def build():
    """data/build.py as a module of its own, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location("build", DATA / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rebuild(build, monkeypatch, mnist: Path | str, fashion: Path | str, out: Path) -> None:
    arguments = ["build.py", "--mnist", str(mnist), "--fashion", str(fashion), "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    build.main()


@pytest.mark.skipif(
    not {"PALINODE_IDX_MNIST", "PALINODE_IDX_FASHION"} <= os.environ.keys(),
    reason="PALINODE_IDX_MNIST and PALINODE_IDX_FASHION name no IDX folders",
)
def test_data_rebuilds_bit_for_bit(build, monkeypatch, tmp_path):
    rebuild(build, monkeypatch, os.environ["PALINODE_IDX_MNIST"], os.environ["PALINODE_IDX_FASHION"], tmp_path)
    made = [name for name in shipped() if not name.startswith("emoji/")]  # emoji/build.py has a test of its own
    assert made
    for name in made:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


def idx(array: np.ndarray) -> bytes:
    """IDX encoding of a uint8 array: two zero bytes, type 8, number of axes, big-endian lengths, content."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


@pytest.fixture
def raw(build, monkeypatch, tmp_path):
    """A folder of small IDX files, three images a digit, which `build` takes for the published ones."""
    values = np.arange(30 * 28 * 28).reshape(30, 28, 28)
    contents = {
        "train-images": idx((values * 7 % 256).astype(np.uint8)),
        "t10k-images": idx((values * 11 % 256).astype(np.uint8)),
        "train-labels": idx(np.arange(30, dtype=np.uint8) % 10),
        "t10k-labels": idx(np.arange(30, dtype=np.uint8) // 3),
    }
    folder = tmp_path / "raw"
    folder.mkdir()
    for part, content in contents.items():
        kind = "idx3" if part.endswith("images") else "idx1"
        (folder / f"{part}-{kind}-ubyte").write_bytes(content)
    digests = {part: hashlib.md5(content).hexdigest() for part, content in contents.items()}
    monkeypatch.setattr(build, "MD5", {"mnist": digests, "fashion": digests})
    splits = {"train": ("train", 0, 2), "reference": ("train", 2, 1), "test": ("t10k", 0, 1)}
    monkeypatch.setattr(build, "SPLITS", {16: splits})
    return folder


def test_resize_is_the_rounded_mean_of_blocks(build):
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, :2] = 1  # mean 1/2 rounds up
    image[0, 0, 2] = 1  # mean 1/4 rounds down
    image[0, 26:, 26:] = 255  # the sum passes 255: no overflow
    image[0, 2, 0] = 100
    image[0, 3, 1] = 5  # mean 26.25
    expected = np.zeros((16, 16), np.uint8)
    expected[1, 1] = 1
    expected[14, 14] = 255
    expected[2, 1] = 26
    np.testing.assert_array_equal(build.resize(image, 16)[0, :, :, 0], expected)
    np.testing.assert_array_equal(build.resize(image, 28)[..., 0], image)


def test_build_writes_what_its_indices_say(build, monkeypatch, raw, tmp_path):
    rebuild(build, monkeypatch, raw, raw, tmp_path / "plain")
    splits = json.loads((tmp_path / "plain/mnist/indices.json").read_text())
    for name, (part, _, count) in build.SPLITS[16].items():
        chosen = splits[name]["indices"]
        labels = np.load(tmp_path / f"plain/mnist/{name}-labels.npy")
        assert chosen == sorted(chosen) and np.bincount(labels).tolist() == [count] * 10
        source = build.read_idx(raw, "mnist", f"{part}-images")[chosen]
        np.testing.assert_array_equal(np.load(tmp_path / f"plain/mnist/{name}.npy"), build.resize(source, 16))
    assert sorted(splits["train"]["indices"] + splits["reference"]["indices"]) == list(range(30))
    # The other common spelling of the names, gzipped, gives the same bytes.
    for path in list(raw.iterdir()):
        name = path.name.replace("-idx", ".idx") + ".gz"
        (raw / name).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    rebuild(build, monkeypatch, raw, raw, tmp_path / "gzipped")
    for path in (tmp_path / "plain").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "gzipped" / path.relative_to(tmp_path / "plain")).read_bytes()


def test_build_refuses_other_files(build, raw):
    path = raw / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match="not the published file"):
        build.read_idx(raw, "mnist", "train-images")
    path.unlink()
    with pytest.raises(SystemExit, match="none of train-images"):
        build.read_idx(raw, "mnist", "train-images")


def test_models_are_small():
    weights = list((ROOT / "models").rglob("*.safetensors"))
    assert weights
    assert sum(path.stat().st_size for path in weights) <= 25_000_000


def test_models_that_were_trained_here_passed_their_check():
    """An oracle is checked nowhere, and a model that was trained elsewhere says so."""
    parameters = params.load(ROOT / "params.yaml")
    models = ROOT / "models"
    for base in parameters.bases:
        assert (models / base / "model/model_index.json").exists(), base
        checked = (models / base / "gate/gate.json").exists()
        assert checked or absence(models / base / "gate") or parameters.without(base) is not None, base
    trained = [base for base in parameters.bases if parameters.without(base) is None]
    assert any((models / base / "gate/gate.json").exists() for base in trained)
