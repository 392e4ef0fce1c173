"""What concept tasks train on: pairs that belong together, and states of the original model's own sampling."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, TEXT_MODEL, TEXT_SCHEDULER, UNET

from palinode.core.images import to_images
from palinode.data import prompt_sets
from palinode.data.scenes import EmojiCorpus
from palinode.models import class_conditional, text_to_image
from palinode.models.guidance import Guided
from palinode.sampling import prompted
from palinode.sampling.samplers import ddim
from palinode.tasks.concept import training_data
from palinode.training import concept_batches
from palinode.training.concept_batches import ConceptBatches

SETTINGS = SimpleNamespace(kept=12, pairs=10, traces=4, guidance=2.0, steps=3, chunk=64)


@pytest.fixture(scope="module")
def corpus() -> EmojiCorpus:
    return EmojiCorpus.read(Path(__file__).parent.parent / "data/emoji")


@pytest.fixture(scope="module")
def text(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)
    prompts = prompt_sets.of_captions(corpus.concepts, "cat", "dog", 8, torch.Generator().manual_seed(0))
    return model, training_data.of_captions(model, corpus, "cat", prompts, SETTINGS, (1, "test"))


def test_shapes_and_prompts_of_captions(text):
    _, data = text
    assert data.x.shape == (12, 4, 8, 8) and data.a.shape == data.m.shape == (10, 4, 8, 8)
    assert data.z.shape == (4, 3, 4, 8, 8) and data.times.tolist() == [67, 34, 1] and data.prompts[0] == ""
    for t, m in zip(data.target, data.anchor, strict=True):
        assert "cat" in data.prompts[t] and data.prompts[t].replace("cat", "dog") == data.prompts[m]
    words = {word for i in data.kept for word in data.prompts[i].replace(",", "").split()}
    assert not words & {"cat", "kitty", "feline"}


def test_states_are_those_of_sampling(text):
    model, data = text
    prompts = [data.prompts[i] for i in data.traced]
    noise = prompted.noise(model, (1, "test target"), 0, 4)
    assert torch.equal(data.z[:, 0], noise)
    ends, _, _ = prompted.trace(model, prompts, (1, "test target"), 2.0, 3)
    with torch.inference_mode():
        guided = Guided(model, model.condition(prompts), model.condition([""]), 2.0)
        once = ddim(guided, noise, [67, 34, 1], draw=lambda: None)
        assert torch.allclose(ends, once, atol=1e-6)
        images = to_images(model.decode(ends))
    drawn = prompted.draw(model, prompts, (1, "test target"), 2.0, 3)
    assert np.abs(drawn.astype(int) - images).max() <= 1


def test_data_comes_back_from_its_files(text, tmp_path):
    _, data = text
    concept_batches.save(data, tmp_path / "data")
    again = concept_batches.load(tmp_path / "data")
    assert again.prompts == data.prompts
    for name in ("x", "kept", "a", "m", "target", "anchor", "z", "traced", "times"):
        assert torch.equal(getattr(again, name), getattr(data, name))


def test_classes():
    model = class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 5)
    images = np.full((15, 8, 8, 1), 0, np.uint8) + (labels * 100)[:, None, None, None]
    data = training_data.of_classes(model, images, labels, 2, 0, SETTINGS, (1, "test"))
    assert data.prompts[0] is None and set(data.prompts) == {None, 0, 1, 2}
    assert (data.a > 0.5).all(), "the target's pictures"
    for x, i in zip(data.x, data.kept, strict=True):
        assert data.prompts[i] != 2 and float(x[0, 0, 0]) == pytest.approx(data.prompts[i] * 100 / 127.5 - 1)
    batch = next(ConceptBatches(data, model, 6, 1, (1, "test"))(0))
    assert (batch.c_a == 2).all() and (batch.c_anchor == 0).all() and (batch.c_null == 3).all() and (batch.c_traj == 2).all()
    assert batch.traj.shape == batch.x.shape and set(batch.t_traj.tolist()) <= set(data.times.tolist())


def test_real_pictures_show_what_the_kept_prompts_ask_for(tmp_path):
    model = class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 5)
    np.save(tmp_path / "train.npy", np.full((15, 8, 8, 1), 0, np.uint8) + (labels * 100)[:, None, None, None])
    np.save(tmp_path / "train-labels.npy", labels)
    settings = SimpleNamespace(root_seed=1, task="test", target=2, anchor=0, kind="class", training=SETTINGS,
                               images=str(tmp_path / "train.npy"), sample=SimpleNamespace(each=4),
                               prompts=None)  # fmt: skip
    prompts, _, real, names = training_data.build(model, settings)
    assert real[:, 0, 0, 0].tolist() == [0] * 4 + [100] * 4 and names is None
    assert [it.text for it in training_data.real_prompts(prompts)] == ["0"] * 4 + ["1"] * 4
