"""Class-conditional models: conditions, guidance, training with and without a class."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, UNET, training

from palinode.bases import class_training
from palinode.bases.class_training import LabelledBatches
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.models import class_conditional, unconditional
from palinode.models.guidance import Guided
from palinode.sampling import prompted
from palinode.sampling.samplers import ddim


@pytest.fixture
def model():
    return class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)


def bands() -> tuple[np.ndarray, np.ndarray]:
    """Ten images of each of three classes: a white band at the top, in the middle, at the bottom."""
    images, labels = np.zeros((30, 8, 8, 1), np.uint8), np.repeat(np.arange(3, dtype=np.uint8), 10)
    for image, y in zip(images, labels, strict=True):
        image[3 * y : 3 * y + 2] = 255
    return images, labels


def test_conditions(model):
    assert model.classes == 3 and model.condition([0, None, 2]).tolist() == [0, 3, 2]
    with pytest.raises(UserError, match="class 3 does not exist: the model has 0 to 2"):
        model.condition([3])


def test_the_class_changes_the_prediction_and_the_folder_keeps_it(model, tmp_path):
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5, 500])
    with torch.no_grad():
        one, none = (model.predict(x, t, model.condition([c, c])) for c in (0, None))
        assert not torch.equal(one, none) and model.nfe["forward"] == 4
        unconditional.save(model, tmp_path / "model")
        loaded = class_conditional.of(unconditional.load(tmp_path / "model"))
        assert torch.equal(one, loaded.predict(x, t, loaded.condition([0, 0])))


def test_an_unconditional_model_is_refused():
    with pytest.raises(UserError, match="here is not class-conditional"):
        class_conditional.of(unconditional.create(UNET, SCHEDULER, seed=1), "here")


def test_guidance_is_the_weighted_difference(model):
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([500, 500])
    given, empty = model.condition([0, 1]), model.condition([None])
    with torch.no_grad():
        with_class, without = model.predict(x, t, given), model.predict(x, t, empty.expand(2))
        guided = Guided(model, given, empty, 2.5).predict(x, t)
    assert torch.allclose(guided, without + 2.5 * (with_class - without), atol=1e-5)


def test_labels_are_dropped_at_the_stated_rate(model):
    images, labels = bands()
    batch = next(LabelledBatches(images, labels, model, 2000, (1, "test"))(0))
    dropped = batch.given == model.classes
    assert 0.07 < dropped.float().mean() < 0.13
    band = batch.x[~dropped][:, 0, [0, 3, 6], 0].argmax(1)
    assert torch.equal(band, batch.given[~dropped])


def test_training_learns_the_classes_and_leaves_one_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    images, labels = bands()
    short = SCHEDULER | {"num_train_timesteps": 100, "beta_end": 0.2, "beta_start": 1e-3}
    settings = SimpleNamespace(root_seed=1, task="bands", model=UNET, scheduler=short,
                               pretrain=training(steps=300, batch=16, lr=4e-3))  # fmt: skip

    def preview(model):
        return prompted.draw(model, [0, None], (1, "bands"), 1.0, 2)

    with Scratch("bands", []) as scratch:
        outcome = class_training.pretrain(images, labels, settings, scratch, "cpu", "bands", preview)
    model = outcome.model
    assert outcome.drawn.shape == (20, 2, 8, 8, 1) and np.array_equal(outcome.drawn[-1], preview(model))
    noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = [0, 1, 2] * 4
    with torch.inference_mode():
        guided = Guided(model, model.condition(wanted), model.condition([None]), 2.0)
        drawn = ddim(guided, noise, list(range(90, -1, -10)), draw=lambda: None)
    rows = torch.stack([drawn[:, 0, 3 * y : 3 * y + 2].mean((1, 2)) for y in range(3)], 1)
    assert (rows.argmax(1) == torch.tensor(wanted)).float().mean() > 0.8
    settings.pretrain = training(steps=5, batch=16)
    with Scratch("bands", []) as scratch:
        left = class_training.pretrain(images, labels, settings, scratch, "cpu", "bands", preview, without=2).model
        with pytest.raises(UserError, match="no image has the class 3"):
            class_training.pretrain(images, labels, settings, scratch, "cpu", "bands", preview, without=3)
    before = class_conditional.create(UNET, short, 3, seeds.derive(1, "bands", "pretrain", "init"))
    moved = (left.net.class_embedding.weight - before.net.class_embedding.weight).abs().amax(1)
    assert moved[2] < 1e-6 < 1e-4 < moved[:2].min(), "only the class left out keeps its embedding"
