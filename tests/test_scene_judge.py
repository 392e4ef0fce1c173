"""The judge of captioned scenes: its pictures, its training, its file."""

from pathlib import Path

import pytest
import torch
from conftest import training

from palinode.classifiers import scene_judge, scene_pictures, storage
from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.data import emoji
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

DATA = Path(__file__).parent.parent / "data/emoji"
SETTINGS = training(steps=30, batch=32, lr=2e-3, betas=[0.9, 0.999], decay="cosine")


@pytest.fixture(scope="module")
def corpus() -> EmojiCorpus:
    return EmojiCorpus.read(DATA)


@pytest.fixture(scope="module")
def few(corpus) -> EmojiCorpus:
    """Two things and no fixed picture."""
    return EmojiCorpus(dict(list(corpus.concepts.items())[:2]), corpus.drawings[:2], [], corpus.fixed, corpus.stickers)


@pytest.fixture(autouse=True)
def scratch_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))


@pytest.fixture(scope="module")
def others() -> torch.Tensor:
    return emoji.read_drawings(DATA, "others.npy")


def test_the_stream_has_the_stated_shares(corpus, others):
    stream = scene_pictures.Stream(corpus, others, 64, (1, "test"))
    batch = stream(3)
    none = batch.concept == len(corpus.concepts)
    assert batch.images.shape == (64, 3, 32, 32) and none.sum() == round(scene_pictures.NONE_SHARE * 64) == 19
    in_no_style = batch.style == len(STYLES)
    assert in_no_style.sum() == 6 and (none | ~in_no_style).all(), "blends, noise and blurred scenes have no style"
    again = stream(3)
    assert torch.equal(batch.images, again.images) and not torch.equal(batch.images, stream(4).images)


def test_held_out_drawings_are_other_drawings(corpus, others):
    held = scene_pictures.Stream(corpus, others, 8, (1,), held=True).others
    used = scene_pictures.Stream(corpus, others, 8, (1,)).others
    assert len(held) == scene_pictures.HELD and len(held) + len(used) == len(others) + len(corpus.pictures)
    assert not any(torch.equal(one, two) for one in held for two in used)


def test_halves_are_the_two_things():
    images = torch.zeros(1, 3, 32, 32)
    images[..., :16], images[..., 16:] = -1, 1
    left, right = scene_pictures.halves(images)
    assert left.shape == right.shape == (1, 3, 32, 32) and (left == -1).all() and (right == 1).all()


def test_a_judge_learns_is_calibrated_and_comes_back_from_its_file(few, others, tmp_path):
    with Scratch("judge", []) as scratch:
        trained = scene_judge.train(few, others, (1, "judge"), SETTINGS, scratch)
    stream = scene_pictures.Stream(few, others, 128, (1, "test"), held=True)
    shares = scene_judge.accuracy(trained, stream, 1)
    assert shares["concept"] > 0.6 and shares["images"] == 128
    assert 0 <= scene_judge.unseen_accuracy(trained, stream, 64, (1, "test"))["none"] <= 1
    assert (trained.temperature != 1).any(), "the temperatures were fitted"
    storage.save(trained, tmp_path / "judge", shares)
    loaded = storage.load(tmp_path / "judge", scene_judge.SceneJudge)
    with torch.no_grad():
        images = stream(0).images
        assert all(torch.equal(a, b) for a, b in zip(trained(images), loaded(images), strict=True))
    (tmp_path / "judge/judge.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(UserError, match="cannot read the judge"):
        storage.load(tmp_path / "judge", scene_judge.SceneJudge)


def test_an_interrupted_judge_continues_to_the_same_weights(few, others, monkeypatch):
    def train():
        with Scratch("judge", []) as scratch:
            return scene_judge.train(few, others, (1, "judge"), training(steps=20, batch=16), scratch).state_dict()

    expected, draw, asked = train(), scene_pictures.Stream.__call__, []

    def until_twelve(stream, step):
        asked.append(step)
        if step == 12 and asked.count(12) == 1:
            raise KeyboardInterrupt
        return draw(stream, step)

    monkeypatch.setattr(scene_pictures.Stream, "__call__", until_twelve)
    with pytest.raises(KeyboardInterrupt):
        train()
    again = train()
    assert asked.count(0) == 2, "once to train, once to calibrate: the interrupted run's steps are not repeated"
    assert all(torch.equal(value, again[name]) for name, value in expected.items())
