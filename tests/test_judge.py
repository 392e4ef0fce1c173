"""The digit judge: how its pictures are varied, and that the shipped ones are what their cards say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from palinode.classifiers import digits, storage
from palinode.core.scratch import Checkpoint

ROOT = Path(__file__).resolve().parents[1]


def test_variations_are_small_and_repeatable():
    x = torch.full((64, 1, 16, 16), -1.0)
    x[:, :, 7:9, 7:9] = 1
    varied = digits.vary(x, torch.Generator().manual_seed(0))
    assert torch.equal(varied, digits.vary(x, torch.Generator().manual_seed(0)))
    assert not torch.equal(varied[0], varied[1]) and varied.min() >= -1 and varied.max() <= 1
    ink, place = varied.squeeze(1) + 1, torch.arange(16.0) - 7.5
    total = ink.sum((1, 2))
    for axis in (1, 2):  # the blot's centre moves by at most a pixel, and a tenth for the scale
        assert ((ink.sum(3 - axis) @ place) / total).abs().max() <= 1.1
    assert (total / 8).sub(1).abs().max() < 0.5


def test_a_saved_judge_answers_alike(tmp_path):
    torch.manual_seed(0)
    trained = digits.train(np.random.default_rng(0).integers(0, 255, (8, 16, 16, 1), dtype=np.uint8),
                          np.arange(8) % 3, (1, "judge"), epochs=1, batch=4)  # fmt: skip
    storage.save(trained, tmp_path / "judge", {"test_accuracy": 0.5})
    x = torch.rand(2, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(storage.load(tmp_path / "judge")(x), trained(x))


def test_a_training_that_was_cut_off_continues_to_the_same_weights(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (16, 16, 16, 1), dtype=np.uint8)
    arguments = (images, np.arange(16) % 3, (1, "judge"), 4, 4)
    whole, epochs = digits.train(*arguments), []
    kept, vary = Checkpoint(tmp_path / "checkpoint.pt"), digits.vary

    def cut_off(x, generator):
        epochs.append(len(x))
        if len(epochs) == 11:  # in the third epoch, of four batches each
            raise KeyboardInterrupt
        return vary(x, generator)

    monkeypatch.setattr(digits, "vary", cut_off)
    with pytest.raises(KeyboardInterrupt):
        digits.train(*arguments, checkpoint=kept)
    again = digits.train(*arguments, checkpoint=kept)
    assert len(epochs) == 11 + 2 * 4
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("task", ["tshirt", "mnist-class"])
def test_a_shipped_judge_reaches_its_accuracy(task):
    folder, data = ROOT / "models" / task / "judge", ROOT / "data/mnist"
    images, labels = (np.load(data / f"judge-test{end}.npy") for end in ("", "-labels"))
    recorded = json.loads((folder / "config.json").read_text())["test_accuracy"]
    assert digits.accuracy(storage.load(folder), images, labels) == pytest.approx(recorded, abs=0.002)
    assert recorded >= 0.985
