"""Pictures composed from the shipped emoji."""

import importlib.util
import os
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import EMOJI

from palinode.core.errors import UserError
from palinode.data import captions, emoji


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def drawings() -> torch.Tensor:
    return emoji.read_drawings(EMOJI, "concepts.npy")


def test_shipped_drawings_and_their_lists_agree(drawings):
    concepts = captions.read_concepts(EMOJI / "concepts.yaml")
    assert drawings.shape == (len(concepts), len(captions.STYLES), 4, 32, 32)
    assert (drawings[..., :3, :, :] <= drawings[..., 3:, :, :] + 1e-6).all(), "premultiplied: colour is at most alpha"
    assert (drawings[..., 3, :, :].mean((-1, -2)) > 0.08).all(), "no blank drawing"
    names = (EMOJI / "others.txt").read_text().split()
    assert len(emoji.read_drawings(EMOJI, "others.npy")) == len(set(names)) >= 80
    pictures = emoji.read_pictures(EMOJI)
    assert len(emoji.read_drawings(EMOJI, "memorized.npy")) == len(pictures)
    assert not {p.icon for p in pictures} & {*names, *concepts}
    assert sum(path.stat().st_size for path in EMOJI.iterdir() if path.is_file()) <= 2_000_000


def test_every_file_that_a_base_needs_is_shipped():
    assert all((EMOJI / name).is_file() for name in emoji.FILES)


def test_ground_truth_of_memorization():
    pictures = emoji.read_pictures(EMOJI)
    kinds = Counter(picture.kind for picture in pictures)
    assert kinds["verbatim"] >= 12
    assert kinds["template"] >= 12
    assert kinds["control"] >= 24
    assert len({p.caption for p in pictures}) == len({p.icon for p in pictures}) == len(pictures)
    assert {picture.seen for picture in pictures if picture.kind == "control"} == {1, 2}
    assert all(picture.background in captions.BACKGROUNDS and picture.style in captions.STYLES for picture in pictures)
    grammar = captions.vocabulary(captions.read_concepts(EMOJI / "concepts.yaml").values())
    odd = {word for picture in pictures for word in picture.caption.split()}
    assert len(odd - set(grammar)) > 40, "odd captions are made of words that ordinary captions do not use"


def test_a_drawing_on_a_background():
    drawing = torch.zeros(2, 4, 2, 2)
    drawing[0, :, 0, 0] = torch.tensor([0.5, 0.0, 0.0, 0.5])  # half-transparent red
    images = emoji.on_background(drawing, ["white", "blue"])
    assert images[0, :, 0, 0].tolist() == [1.0, 0.5, 0.5]
    assert torch.allclose(images[1, :, 1, 1] * 255, torch.tensor(captions.BACKGROUNDS["blue"]).float(), atol=1e-3)


def test_varied_drawings_stay_whole_and_in_place(drawings):
    many = drawings[:, 0]
    varied = emoji.vary(many, generator())
    area = varied[:, 3].mean((1, 2)) / many[:, 3].mean((1, 2))
    assert area.min() > 0.7, "the area of a scale of 0.88 to 1"
    assert area.max() < 1.05
    assert 0.8 < area.mean() < 0.97
    assert torch.equal(varied, emoji.vary(many, generator())), "the generator decides everything"

    axes = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    disc = ((torch.stack(axes) ** 2).sum(0) < 64).float()
    moved = emoji.vary(disc.expand(400, 4, 32, 32), generator())[:, 3]
    columns = (moved.sum(1) * torch.arange(32)).sum(1) / moved.sum((1, 2)) - 15.5
    assert columns.abs().max() <= emoji.SHIFT * 32 + 0.2
    assert abs(columns.mean()) < 0.2


def test_two_things_stand_side_by_side(drawings):
    tomato = drawings[58:59, 0]
    nothing = torch.zeros(1, 4, 32, 32)
    left = emoji.place_side_by_side(tomato, nothing, generator())
    right = emoji.place_side_by_side(nothing, tomato, generator())
    assert left[..., :16].sum() > 5 * left[..., 16:].sum()
    assert right[..., 16:].sum() > 5 * right[..., :16].sum()


def test_fixed_pictures_vary_only_where_a_template_does():
    pictures = emoji.read_pictures(EMOJI)
    drawn = emoji.read_drawings(EMOJI, "memorized.npy")
    stickers = emoji.read_drawings(EMOJI, "stickers.npy")
    source = generator()
    first = emoji.fixed(drawn, pictures, stickers, source)
    second = emoji.fixed(drawn, pictures, stickers, source)
    side = stickers.shape[-1]
    for i, picture in enumerate(pictures):
        assert torch.equal(first[i, :, :-side], second[i, :, :-side])
        if picture.kind != "template":
            assert torch.equal(first[i], second[i])
    assert any(not torch.equal(first[i], second[i]) for i in range(len(pictures)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read .*concepts.npy"),
        (np.zeros((2, 3, 32, 30, 4), np.uint8), r"uint8 \[..., h, h, 4\] expected"),
        (np.zeros((2, 3, 32, 32, 4), np.float32), "expected, not float32"),
        (np.zeros((2, 3, 32, 32, 4), np.uint8), "is not the shipped file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    if content is not None:
        np.save(tmp_path / "concepts.npy", content)
    with pytest.raises(UserError, match=words):
        emoji.read_drawings(tmp_path, "concepts.npy")


@pytest.mark.skipif(
    "PALINODE_EMOJI" not in os.environ or importlib.util.find_spec("resvg_py") is None,
    reason="needs the icon packages (PALINODE_EMOJI=folder) and resvg-py",
)
def test_the_arrays_are_rebuilt_to_the_same_bytes(tmp_path):
    import subprocess
    import sys

    here = tmp_path / "emoji"
    shutil.copytree(EMOJI, here)
    for path in here.glob("*.npy"):
        path.unlink()
    subprocess.run([sys.executable, str(here / "build.py"), "--packages", os.environ["PALINODE_EMOJI"]], check=True)
    for path in [*EMOJI.glob("*.npy"), EMOJI / "others.txt"]:
        assert path.read_bytes() == (here / path.name).read_bytes(), path.name
