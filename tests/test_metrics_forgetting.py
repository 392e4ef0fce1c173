"""Hits, and restoring a noised forget image."""

import numpy as np
import pytest
import torch

from palinode.metrics import forgetting
from palinode.models.schedule import Schedule


class Memory:
    """The exact noise predictor of a data set of one image: it restores that image from any noise."""

    device = torch.device("cpu")

    def __init__(self, image: torch.Tensor):
        self.schedule = Schedule.from_config(
            {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
        )
        self.image, self.batches = image, []

    def predict(self, x, t):
        self.batches.append(len(x))
        gamma, sigma = (s[t].view(-1, 1, 1, 1) for s in (self.schedule.gamma, self.schedule.sigma))
        return (x - gamma * self.image) / sigma


class Pixels:
    """Features that are the pixels, from -1 to 1."""

    name, limit = "pixels", None

    def features(self, images):
        return (images.reshape(len(images), -1) / 127.5 - 1).astype(np.float32)


@pytest.fixture
def forget():
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)


def test_distance_is_the_euclidean_one_to_the_nearest(forget):
    images = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    flat, targets = images.reshape(30, -1) / 255, forget.reshape(2, -1) / 255
    expected = np.linalg.norm(flat[:, None] - targets, axis=2).min(1)
    assert forgetting.measure_distances(images, forget) == pytest.approx(expected)


def test_hits_lie_strictly_within_the_distance(forget):
    images = np.concatenate([forget, forget ^ 255])
    assert forgetting.find_hits(images, forget, 0.01).tolist() == [True, True, False, False]
    assert not forgetting.find_hits(images, forget, 0.0).any()


def test_a_model_of_one_image_restores_it(forget):
    model = Memory(torch.from_numpy(forget[:1]).permute(0, 3, 1, 2) / 127.5 - 1)
    outputs = forgetting.denoise(model, forget[:1], 250, 3)
    assert len(model.batches) == 251 and (np.abs(outputs.astype(int) - forget[0]) <= 1).all()
    assert forgetting.compare_with_originals(outputs, forget[:1], Pixels()) == pytest.approx(1, abs=1e-4)


def test_noise_belongs_to_image_and_draw_not_to_the_batch(forget):
    model = Memory(torch.zeros(1, 4, 4))
    model.predict = lambda x, t: 0.3 * x
    before = torch.get_rng_state()
    whole = forgetting.denoise(model, forget, 20, 3)
    assert (forgetting.denoise(model, forget, 20, 3, batch=4) == whole).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert len(np.unique(whole.reshape(6, -1), axis=0)) == 6


def test_similarity_pairs_each_output_with_its_original(forget):
    assert forgetting.compare_with_originals(np.repeat(forget, 3, axis=0), forget, Pixels()) == pytest.approx(
        np.ones(6)
    )
    assert forgetting.compare_with_originals(255 - forget, forget, Pixels()) == pytest.approx(-np.ones(2))
