"""Feature networks."""

import numpy as np
import pytest
import torch

from palinode.classifiers import digits
from palinode.core.errors import UserError
from palinode.metrics import features


@pytest.fixture
def images():
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (9, 16, 16, 1), dtype=np.uint8)


def test_judge_features_do_not_depend_on_the_batch(images, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = features.JudgeBackbone(digits.Judge(16, 1, 10))
    whole = network.features(images)
    monkeypatch.setattr(features, "BATCH", 4)
    assert network.features(images) == pytest.approx(whole, abs=1e-5)
    assert whole.shape == (9, 64) and whole.dtype == np.float32 and network.logits(images).shape == (9, 10)
    assert [layer.shape[1] for layer in network.layers(images)] == [32, 32, 64, 64]


def test_grey_becomes_rgb_and_small_becomes_larger(images):
    x = features.to_rgb(images, 64)
    assert x.shape == (9, 3, 64, 64) and x.min() >= 0 and x.max() <= 1 and torch.equal(x[:, 0], x[:, 2])
    assert features.to_rgb(np.zeros((1, 80, 80, 3), np.uint8), 64).shape == (1, 3, 80, 80)


def test_a_missing_judge_is_a_reason():
    networks, reasons = features.load_available(None, "no classifier for this task")
    assert list(networks) == ["efficientnet_lite0"] and reasons == {"judge": "no classifier for this task"}


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"other")
    with pytest.raises(UserError, match="not the published weights"):
        features.require_digest(tmp_path / "weights.pth", "0123abcd")


def test_efficientnet(images):
    before = torch.get_rng_state()
    network = features.EfficientNetLite0()
    assert torch.equal(torch.get_rng_state(), before)
    assert network.features(images).shape == (9, 1280) and network.logits(images).shape == (9, 1000)
    layers = network.layers(images)
    assert [tuple(layer.shape[1:]) for layer in layers] == [
        (16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2),
    ]  # fmt: skip
    np.testing.assert_allclose(network.pool(layers[-1]).numpy(), network.features(images), atol=1e-6)
