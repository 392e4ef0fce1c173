"""Prompt-side detectors: closed forms on models one can compute by hand, batches, seeds, and what a pass costs."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import ROOT
from scipy import ndimage

from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import detectors, probe
from palinode.memorization.detectors import anisotropy, noise_norm, one_step, seed_similarity, sharpness
from palinode.models import text_to_image
from palinode.models.schedule import Schedule
from palinode.sampling.prompted import timesteps

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

NAMES = ["noise_norm", "one_step", "seed_similarity", "anisotropy", "sharpness"]
SCHEDULE = Schedule.from_config(TEXT_SCHEDULER)
SHAPE, SIZE = (4, 8, 8), 4 * 8 * 8
STRENGTH = torch.tensor([0.0, 0.5, 2.0])  # of three prompts; the empty one has 0


def made_probe(predict, steps: int = 20, guidance: float = 3.0, generations: int = 3) -> probe.Probe:
    """A model predict(x, t, c), where a condition is the strength c as [N, 1, 1, 1], and its three prompts."""

    def called(x, t, condition):
        return predict(x, t.view(-1, 1, 1, 1).float(), condition.view(-1, 1, 1, 1)).expand_as(x)

    model = SimpleNamespace(
        predict=called, schedule=SCHEDULE, shape=SHAPE, device=torch.device("cpu"), decode=lambda z: z[:, :3]
    )
    noise = torch.randn(3 * generations, *SHAPE, generator=torch.Generator().manual_seed(0))
    condition = STRENGTH.repeat_interleave(generations).view(-1, 1, 1)
    times = timesteps(TEXT_SCHEDULER, steps)
    return probe.Probe(model, condition, torch.zeros(1, 1, 1), noise, times, guidance, generations)


def close(measured: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.allclose(measured, wanted, rtol=1e-4, atol=1e-5)


def test_the_noise_norm_averages_the_first_steps_and_leaves_guidance_out():
    for guidance in (1.0, 7.5):
        made = made_probe(lambda x, t, c: c * t, guidance=guidance)
        measured = noise_norm.scores(made)
        for name, count in (("noise_norm_first", 1), ("noise_norm_ten", 10), ("noise_norm_all", 20)):
            mean = sum(made.times[:count]) / count
            assert close(measured[name], STRENGTH * mean * SIZE**0.5), (name, guidance)


def test_the_noise_norm_follows_the_guided_path():
    def predict(x, t, c):  # the difference is c x, so its norm is that of where the path has come
        return c * x

    def first_two(guidance):
        made = made_probe(predict, guidance=guidance)
        measured = noise_norm.scores(made)
        assert close(measured["noise_norm_first"], STRENGTH * made.by_prompt(made.noise.flatten(1).norm(dim=1)).mean(1))
        return measured["noise_norm_all"]

    assert not close(first_two(1.0)[1:], first_two(2.0)[1:])


def test_one_step_measures_what_guidance_predicts():
    last = len(SCHEDULE) - 1
    gamma, sigma = float(SCHEDULE.gamma[last]), float(SCHEDULE.sigma[last])
    made = made_probe(lambda x, t, c: (1 + c) * x / sigma)
    measured = one_step.scores(made)["one_step_mse"]
    power = made.by_prompt(made.noise.square().flatten(1).mean(1)).mean(1)
    assert close(measured, (sigma / gamma * (1 + 3 * STRENGTH)) ** 2 * power)


def test_edges_are_those_of_sobel():
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1)) / 8
    for image, measured in zip(images.movedim(1, -1).numpy(), one_step.find_edges(images), strict=True):
        wanted = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1)).sum(2) > 1.5
        assert 0.01 < wanted.mean() < 0.99 and np.array_equal(measured, wanted)
    step = torch.zeros(1, 3, 256, 256)
    step[..., 128:] = 1  # magnitude 3 x 4 x 4
    assert one_step.find_edges(step)[0].nonzero()[:, 1].unique().tolist() == [127, 128]
    assert not one_step.find_edges(step * 0.031).any() and one_step.find_edges(step * 0.032).any()
    for size in (32, 512):
        assert one_step.find_edges(torch.rand(1, 3, size, size)).shape == (1, 256, 256)


def test_edges_count_where_most_noises_agree():
    """The third prompt shows a step, 32 pixels wide after resizing, whatever the noise; the others nothing."""
    picture = torch.zeros(SHAPE)
    picture[..., 4:] = 2
    gamma, sigma = float(SCHEDULE.gamma[-1]), float(SCHEDULE.sigma[-1])

    def predict(x, t, c):  # start - sigma / gamma eps = (c > 1) (picture - 1), at guidance 1
        return (x / gamma - (c > 1) * (picture - 1)) * gamma / sigma

    measured = one_step.scores(made_probe(predict, guidance=1.0))["one_step_edges"]
    assert measured[:2].tolist() == [0, 0] and measured[2] == pytest.approx(33 / 256, abs=2 / 256)


def test_noises_pulled_to_one_picture_are_similar():
    picture = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2))
    measured = seed_similarity.scores(made_probe(lambda x, t, c: x * (c > 0) + c * picture, guidance=1.0))
    assert measured["seed_similarity"][0] < 0.5 and close(measured["seed_similarity"][1:], torch.ones(2))
    large = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(3))
    assert close(seed_similarity.similarity(large, large), torch.ones(2))
    assert (seed_similarity.similarity(large, large.flip(0)) < 0.3).all()


def test_anisotropy_adds_norm_and_cosine():
    channels = torch.tensor([1.0, 2.0, 2.0, 0.0]).view(4, 1, 1)
    measured = anisotropy.scores(made_probe(lambda x, t, c: (1 + c) * channels))["anisotropy"]
    norm = STRENGTH * 3 * 8 * 8  # ||c channels|| = 3 c sqrt(8 x 8), times sqrt(4 x 64 x 64 / (4 x 8 x 8))
    assert close(measured, norm + 2 * (STRENGTH > 0))
    opposed = anisotropy.scores(made_probe(lambda x, t, c: (1 - c) * channels))["anisotropy"]
    assert close(opposed, norm - 2 * (STRENGTH > 0))
    late = anisotropy.scores(made_probe(lambda x, t, c: channels + c * channels * (t < 20)))["anisotropy"]
    assert close(late, 2.0 * (STRENGTH > 0)), "the norm is the first step's, the cosine the third-last one's"


def test_sharpness_is_the_curvature_along_the_score_difference():
    made = made_probe(lambda x, t, c: c * x)  # s_c = -c x / sigma, J_c d = -c d / sigma with d = s_c
    sigma = float(SCHEDULE.sigma[made.times[0]])
    length = made.by_prompt(made.noise.flatten(1).norm(dim=1)).mean(1)
    assert close(sharpness.scores(made)["sharpness"], STRENGTH**2 / sigma**2 * length)


def test_equal_predictions_score_0():
    made = made_probe(lambda x, t, c: torch.sin(x) + t)
    for detector in (noise_norm, anisotropy, sharpness):
        assert all(not value.any() for value in detector.scores(made).values()), detector.__name__


@pytest.fixture(scope="module")
def model():
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, EmojiCorpus.read(ROOT / "data/emoji").words, seed=1)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    with Scratch("detect", []) as opened:
        yield opened


def measure(model, prompts, scratch, names=NAMES, base="mini", batch=64):
    settings = SimpleNamespace(generations=2, steps=12, guidance=3.0, batch=batch)
    return probe.measure(model, prompts, names, settings, (1, base), scratch)


PROMPTS = ["a kitty", "velvet harbor in winter", "a dog, on blue", "an icon of grapes, noto style", "a kitty"]


def test_batches_change_nothing_and_noise_belongs_to_prompt_and_generation(model, scratch):
    whole = measure(model, PROMPTS, scratch.part("whole"))
    parts = measure(model, PROMPTS, scratch.part("parts"), batch=3)
    assert len(list((scratch.folder / "parts").iterdir())) == 5 and list(whole) == list(parts) and len(whole) == 8
    for name, values in whole.items():
        assert values.shape == (5,) and np.isfinite(values).all()
        # A grey level may round otherwise in another batch, which moves the mean of a few edges by 1/255.
        assert np.allclose(values, parts[name], rtol=1e-3, atol=1e-6), name
    assert whole["noise_norm_all"][0] != whole["noise_norm_all"][4], "the same prompt, other noise"
    again = measure(model, PROMPTS, scratch.part("other"), base="other", batch=3)
    assert not np.allclose(again["noise_norm_all"], whole["noise_norm_all"])
    few, more = (probe.draw_probe_noise(model, (1, "mini"), 1, 1, n) for n in (2, 3))
    assert torch.equal(few, more[:2])


def test_finished_batches_are_not_computed_again(model, scratch):
    first = measure(model, PROMPTS, scratch, batch=4)
    model.nfe["forward"] = 0
    again = measure(model, PROMPTS, scratch, batch=4)
    assert model.nfe["forward"] == 0 and all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_is_what_the_model_counts(model, scratch, name):
    model.nfe["forward"] = 0
    scores = measure(model, PROMPTS[:2], scratch, names=[name])
    costs = probe.score_costs([name], 12)
    assert list(costs) == list(scores)
    assert model.nfe["forward"] == 2 * 2 * 2 * max(cost.pairs for cost in costs.values())  # pair, noises, prompts


def test_unknown_and_unsuitable_detectors_are_refused():
    with pytest.raises(UserError, match=r"^here: unknown detector 'norm': there is no memorization/detectors/norm.py"):
        detectors.find("norm", "here: ")
    with pytest.raises(UserError, match="seed_similarity compares noises and needs at least 2 generations, not 1"):
        detectors.check("seed_similarity", 1)
    detectors.check("seed_similarity", 2)


def test_a_prompt_the_encoder_does_not_take_is_named(model, scratch):
    for prompt, words in (("a cat " * 20, "needs 42 tokens"), ("qwxyz", "no word that the text encoder knows")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(UserError, match=words):
                measure(model, ["a kitty", prompt], scratch)
