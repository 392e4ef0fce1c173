"""Class-conditional models: conditions, guidance, training with and without a class."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import SCHEDULER, UNET

from palinode.bases.class_conditional import pretrain as pretraining
from palinode.bases.class_conditional.pretrain import GUIDANCE, LabelledBatches
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.io import read_csv
from palinode.models import class_conditional, unconditional
from palinode.models.guidance import Guided
from palinode.sampling import prompted
from palinode.sampling.samplers import ddim

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

SHORT = SCHEDULER | {"num_train_timesteps": 100, "beta_end": 0.2, "beta_start": 1e-3}


@pytest.fixture
def model():
    return class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)


def bands() -> tuple[np.ndarray, np.ndarray]:
    """Ten images of each of three classes: a white band at the top, in the middle, at the bottom."""
    images = np.zeros((30, 8, 8, 1), np.uint8)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 10)
    for image, y in zip(images, labels, strict=True):
        image[3 * y : 3 * y + 2] = 255
    return images, labels


def test_conditions(model):
    assert model.classes == 3
    assert model.condition([0, None, 2]).tolist() == [0, 3, 2]
    with pytest.raises(UserError, match="class 3 does not exist: the model has 0 to 2"):
        model.condition([3])


def test_the_class_changes_the_prediction_and_the_folder_keeps_it(model, tmp_path):
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([5, 500])
    with torch.no_grad():
        of_class = model.predict(x, t, model.condition([0, 0]))
        of_none = model.predict(x, t, model.condition([None, None]))
        assert not torch.equal(of_class, of_none)
        assert model.nfe["forward"] == 4
        unconditional.save(model, tmp_path / "model")
        loaded = class_conditional.wrap(unconditional.load(tmp_path / "model"))
        assert torch.equal(of_class, loaded.predict(x, t, loaded.condition([0, 0])))


def test_an_unconditional_model_is_refused():
    with pytest.raises(UserError, match="here is not class-conditional"):
        class_conditional.wrap(unconditional.create(UNET, SCHEDULER, seed=1), "here")


def test_guidance_is_the_weighted_difference(model):
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([500, 500])
    condition = model.condition([0, 1])
    null = model.condition([None])
    with torch.no_grad():
        with_class = model.predict(x, t, condition)
        without = model.predict(x, t, null.expand(2))
        guided = Guided(model, condition, null, 2.5).predict(x, t)
    assert torch.allclose(guided, without + 2.5 * (with_class - without), atol=1e-5)


def test_labels_are_dropped_at_the_stated_rate(model):
    images, labels = bands()
    batch = next(LabelledBatches(images, labels, model, 2000, (1, "test"))(0))
    dropped = batch.prompt == model.classes
    assert 0.07 < dropped.float().mean() < 0.13
    band = batch.x[~dropped][:, 0, [0, 3, 6], 0].argmax(1)
    assert torch.equal(band, batch.prompt[~dropped])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with the bands in data/."""
    tiny.make_folder(tmp_path, monkeypatch)
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    for end, array in zip(("", "-labels"), bands(), strict=True):
        np.save(f"data/bands{end}.npy", array)
    return tmp_path


def pretrain(name: str, steps: int, lr: float = 1e-3) -> class_conditional.ClassConditional:
    """Prepare and train the base `bands` or its oracle; the model, as it was saved."""
    task = {"base": "bands", "target": 2, "anchor": 0}
    parameters = tiny.concept_parameters({"no-third": task}, {"finetune": {"method": "naive_deletion"}})
    parameters["bases"] = ["bands", "bands-without-2"]
    bands = {
        "kind": "class",
        "images": "data/bands.npy",
        "judge": dict.fromkeys(("train", "test"), "data/bands.npy"),
        "size": 8,
        "channels": 1,
        "model": UNET,
        "scheduler": SHORT,
        "pretrain": {"steps": steps, "batch": 16, "lr": lr},
    }
    parameters["base_models"] |= {"bands": bands, "bands-without-2": {"of": "bands", "without": 2}}
    tiny.write_plan(parameters)
    tiny.run("prepare", "base", name)
    tiny.run("pretrain", name)
    return class_conditional.wrap(unconditional.load(f"models/{name}/model"))


def test_training_learns_the_classes(folder, monkeypatch):
    monkeypatch.setattr(pretraining, "STEPS", 2)
    model = pretrain("bands", steps=300, lr=4e-3)
    noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = [0, 1, 2] * 4
    with torch.inference_mode():
        guided = Guided(model, model.condition(wanted), model.condition([None]), 2.0)
        drawn = ddim(guided, noise, list(range(90, -1, -10)))
    rows = torch.stack([drawn[:, 0, 3 * y : 3 * y + 2].mean((1, 2)) for y in range(3)], 1)
    assert (rows.argmax(1) == torch.tensor(wanted)).float().mean() > 0.8

    log = folder / "models/bands/training"
    assert [line["step"] for line in read_csv(log / "denoiser.csv")][-1] == "299"
    epochs = np.load(log / "epochs.npy")
    assert epochs.shape == (20, 5, 8, 8, 1)
    last = prompted.draw(model, [0, 1, 2, None, None], (1, "bands"), GUIDANCE, 2)
    assert np.abs(epochs[-1].astype(int) - last).max() <= 2, "drawn with what is saved, but for its half precision"


def test_an_oracle_never_sees_the_class_that_is_left_out(folder):
    model = pretrain("bands-without-2", steps=5)
    before = class_conditional.create(UNET, SHORT, 3, seeds.derive(1, "bands", "pretrain", "init"))
    start = before.net.class_embedding.weight.half().float()
    moved = (model.net.class_embedding.weight - start).abs().amax(1)
    assert model.classes == 3
    assert moved[2] == 0, "only the class left out keeps its embedding"
    assert moved[:2].min() > 1e-4
