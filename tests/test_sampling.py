"""Samplers against diffusers' schedulers; pairing, chunking and order."""

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, TEXT_MODEL, TEXT_SCHEDULER, UNET

from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.models import class_conditional, text_to_image, unconditional
from palinode.models.guidance import Guided
from palinode.models.schedule import Schedule, leading_timesteps
from palinode.params.image_tasks import Sample
from palinode.sampling import early, paired, prompted, samplers, unprompted, workers

SETTINGS = Sample(sampler="ddpm", steps=5, chunk=4, count=10)
KEY = (1, "task")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    return lambda name: Scratch(name, [])


@pytest.fixture(scope="module")
def text_model(corpus):
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)


# Samplers


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_samplers_agree_with_diffusers(model, name):
    from diffusers import DDIMScheduler, DDPMScheduler

    cls = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[name]
    config = {k: v for k, v in SCHEDULER.items() if name == "ddpm" or k != "variance_type"}
    scheduler = cls(**config, timestep_spacing="leading", **({"set_alpha_to_one": True} if name == "ddim" else {}))
    scheduler.set_timesteps(10)
    times = leading_timesteps(1000, 10)
    assert scheduler.timesteps.tolist() == times

    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    ours = samplers.SAMPLERS[name](model, start, times, lambda: torch.randn(start.shape, generator=noise))
    x = start
    noise = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        x = scheduler.step(model.predict(x, t.repeat(2)), t, x, generator=noise).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_ddim_draws_nothing_and_ends_where_the_schedule_says(model):
    def refuse():
        raise AssertionError("no noise is drawn")

    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model.schedule = Schedule(model.schedule.alpha_bar, clip=False)
    with torch.no_grad():
        whole = samplers.ddim(model, start, [999, 500], refuse)
        assert torch.equal(whole, samplers.ddim(model, start, [999, 500]))
        model.schedule = Schedule(model.schedule.alpha_bar, clip=False, final=float(model.schedule.alpha_bar[0]))
        assert not torch.allclose(whole, samplers.ddim(model, start, [999, 500]), atol=1e-4)


def test_a_prediction_of_the_noise_stands_for_an_image():
    schedule = Schedule.from_config(SCHEDULER)
    x, eps = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 10, 400, 900])
    torch.testing.assert_close(schedule.predict_x0(schedule.add_noise(x, eps, t), eps, t), x, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("steps", [0, 1001])
def test_time_steps_beyond_the_schedule_are_refused(steps):
    with pytest.raises(UserError, match=rf"steps must lie in 1\.\.1000, not {steps}"):
        leading_timesteps(1000, steps)


# Without prompts


def test_a_sample_depends_on_its_index_alone(model):
    together = unprompted.sample_chunk(model, KEY, 0, 4, "ddpm", 5)
    again = unprompted.sample_chunk(model, KEY, 0, 4, "ddpm", 5)
    alone = unprompted.sample_chunk(model, KEY, 2, 2, "ddpm", 5)
    assert np.array_equal(together, again)
    assert np.abs(together[2:].astype(int) - alone).max() <= 1  # another chunk size: rounding only
    assert not np.array_equal(together, unprompted.sample_chunk(model, (1, "other"), 0, 4, "ddpm", 5))


def test_any_order_and_any_interruption_give_the_same_bytes(model, scratch):
    with scratch("whole") as place:
        whole = unprompted.sample(model, KEY, SETTINGS, place, "test")
    with scratch("parts") as place:
        for number in (2, 1):  # the last chunks first, as another process would
            own = slice(number, number + 1)
            unprompted.sample(model, KEY, SETTINGS, Scratch.at("parts", place.folder), "test", share=own)
        parts = unprompted.sample(model, KEY, SETTINGS, place, "test")
    assert whole.shape == (10, 8, 8, 1)
    assert np.array_equal(whole, parts)


def test_finished_chunks_are_not_drawn_again(model, scratch):
    def evaluations(place: Scratch) -> int:
        before = model.nfe["forward"]
        unprompted.sample(model, KEY, SETTINGS, place, "test")
        return model.nfe["forward"] - before

    with scratch("task") as place:
        assert evaluations(place) == 10 * 5
        assert evaluations(place) == 0
        (place.folder / "chunk-8.npy").unlink()
        assert evaluations(place) == 2 * 5


def test_models_share_the_noise(model):
    """Two models that predict the same thing give the same image: initial and per-step noise are the task's."""
    other = unconditional.create(UNET, SCHEDULER, seed=2)
    for net in (model.net, other.net):
        torch.nn.init.zeros_(net.conv_out.weight)
        torch.nn.init.zeros_(net.conv_out.bias)
    first, second = (unprompted.sample_chunk(m, KEY, 0, 3, "ddpm", 5) for m in (model, other))
    assert np.array_equal(first, second)


def test_global_randomness_is_left_alone(model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    unprompted.sample_chunk(model, KEY, 0, 2, "ddpm", 3)
    unconditional.create(UNET, SCHEDULER, seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_chunks_cover_every_index_once():
    covered = [i for first, count in paired.chunks(10, 4) for i in range(first, first + count)]
    assert covered == list(range(10))


def test_only_a_worker_has_a_shared_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(workers.SHARDS, raising=False)
    assert workers.shared_folder() is None
    monkeypatch.setenv(workers.SHARDS, str(tmp_path))
    assert workers.shared_folder() == tmp_path


def test_one_process_starts_no_others(scratch, monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    with scratch("task") as place:
        workers.launch(place, 1)


def test_a_process_that_fails_ends_the_run_with_one_line(scratch, monkeypatch):
    class Failed:
        returncode = 3

    monkeypatch.setattr("subprocess.run", lambda *arguments, **options: Failed)
    with pytest.raises(UserError, match="a sampling process ended with status 3"), scratch("task") as place:
        workers.launch(place, 2)


# With prompts


def test_prompted_samples_depend_neither_on_the_chunk_nor_on_other_prompts(text_model):
    prompts = ["a kitty", "a dog, on blue", "a kitty", "look at grapes"]
    whole = prompted.draw(text_model, prompts, KEY, 2.0, 3, chunk=4)
    single = prompted.draw(text_model, prompts[:2], KEY, 2.0, 3, chunk=1)
    assert whole.shape == (4, 32, 32, 3)
    assert np.abs(whole[:2].astype(int) - single).max() <= 1
    assert not np.array_equal(whole[0], whole[2]), "the same prompt, another noise"


def test_too_many_steps_are_refused():
    with pytest.raises(UserError, match=r"steps must lie in 1\.\.99, not 100"):
        prompted.timesteps(TEXT_SCHEDULER, 100)


def test_finished_chunks_of_prompts_are_not_drawn_again(text_model, scratch):
    prompts = ["a dog"] * 5
    with scratch("task") as place:
        whole = prompted.draw(text_model, prompts, KEY, 2.0, 3, place, chunk=2)
        (place.folder / "chunk-2.npy").unlink()
        np.save(place.folder / "chunk-0.npy", np.zeros_like(whole[:2]))
        again = prompted.draw(text_model, prompts, KEY, 2.0, 3, place, chunk=2)
    assert not again[:2].any()
    assert np.array_equal(again[2:], whole[2:])


def test_states_lie_on_trajectories_of_the_sampler():
    """Whatever the others of a batch do: each state is what sampling from its noise has before its step."""
    model = class_conditional.create(UNET, SCHEDULER | {"clip_sample": False}, classes=3, seed=1)
    condition, null = model.condition([0, 2, 1, 0, 2, 1, 0, 2]), model.condition([None])
    times = prompted.timesteps(model.config, 4)
    generator = torch.Generator().manual_seed(0)
    states, t = prompted.trajectory_states(model, condition, null, 2.0, times, generator)
    assert states.shape == (8, 1, 8, 8) and set(t.tolist()) <= {750, 500, 250, 0}
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i in range(8):
            x = noise[i : i + 1]
            guided = Guided(model, condition[i : i + 1], null, 2.0)
            for step in range(times.index(int(t[i]))):
                x = samplers.ddim_step(guided, x, times[step], times[step + 1])
            torch.testing.assert_close(states[i : i + 1], x, rtol=1e-4, atol=1e-4)


# Samples that are given up on the way


@pytest.mark.parametrize("look", [1, 3])
def test_samples_that_are_kept_are_those_of_plain_sampling(model, look):
    plain = unprompted.sample_chunk(model, KEY, 2, 6, "ddpm", 5)
    seen = []

    def near(x0: torch.Tensor) -> torch.Tensor:
        seen.append(x0)
        return torch.tensor([True, False, False, True, True, False])

    images, numbers = early.sample_near(model, KEY, 2, 6, 5, look, near)
    assert numbers.tolist() == [2, 5, 6] and seen[0].shape == (6, *model.shape)
    assert np.abs(images.astype(int) - plain[[0, 3, 4]]).max() <= 1, "another batch rounds otherwise"


def test_no_sample_may_be_near(model):
    images, numbers = early.sample_near(model, KEY, 0, 3, 5, 2, lambda x0: torch.zeros(3, dtype=torch.bool))
    assert images.shape == (0, *model.shape[1:], model.shape[0]) and not len(numbers)


@pytest.mark.parametrize(
    "named, own", [("cpu", "cpu"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")], ids=["cpu", "any-gpu", "one-gpu"]
)
def test_a_worker_keeps_to_the_device_that_was_named(monkeypatch, named, own):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(workers.own_device(torch.device(named))) == own


def test_workers_share_the_chunks(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(list(range(8))[workers.own_share(1)])
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
