"""Samplers against diffusers' schedulers; pairing, chunking and order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, UNET

from palinode.core.scratch import Scratch
from palinode.models import unconditional
from palinode.models.schedule import leading_timesteps
from palinode.sampling import paired, samplers, unprompted

SETTINGS = SimpleNamespace(sampler="ddpm", steps=5, chunk=4)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_samplers_agree_with_diffusers(model, name):
    from diffusers import DDIMScheduler, DDPMScheduler

    cls = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[name]
    config = {k: v for k, v in SCHEDULER.items() if name == "ddpm" or k != "variance_type"}
    scheduler = cls(**config, timestep_spacing="leading", **({"set_alpha_to_one": True} if name == "ddim" else {}))
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == leading_timesteps(1000, 10)

    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    ours = samplers.SAMPLERS[name](model, start, leading_timesteps(1000, 10), lambda: torch.randn(start.shape, generator=noise))
    x, noise = start, torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        x = scheduler.step(model.predict(x, t.repeat(2)), t, x, generator=noise).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_a_sample_depends_on_its_index_alone(model):
    key = (1, "task")
    together = unprompted.sample_chunk(model, key, 0, 4, "ddpm", 5)
    again = unprompted.sample_chunk(model, key, 0, 4, "ddpm", 5)
    alone = unprompted.sample_chunk(model, key, 2, 2, "ddpm", 5)
    assert np.array_equal(together, again)
    assert np.abs(together[2:].astype(int) - alone).max() <= 1  # another chunk size: rounding only
    assert not np.array_equal(together, unprompted.sample_chunk(model, (1, "other"), 0, 4, "ddpm", 5))


def test_any_order_and_any_interruption_give_the_same_bytes(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    with Scratch("whole", []) as scratch:
        whole = unprompted.sample_all(model, (1, "task"), 10, SETTINGS, scratch, "test")
    with Scratch("parts", []) as scratch:
        for part in reversed(paired.chunks(10, 4)[1:]):  # the last chunks first, as another process would
            unprompted._chunk(scratch.folder, model, (1, "task"), part, SETTINGS)
        parts = unprompted.sample_all(model, (1, "task"), 10, SETTINGS, scratch, "test")
    assert whole.shape == (10, 8, 8, 1) and np.array_equal(whole, parts)


def test_models_share_the_noise(model):
    """Two models that predict the same thing give the same image: initial and per-step noise are the task's."""
    other = unconditional.create(UNET, SCHEDULER, seed=2)
    for net in (model.net, other.net):
        torch.nn.init.zeros_(net.conv_out.weight)
        torch.nn.init.zeros_(net.conv_out.bias)
    first, second = (unprompted.sample_chunk(m, (1, "task"), 0, 3, "ddpm", 5) for m in (model, other))
    assert np.array_equal(first, second)


def test_global_randomness_is_left_alone(model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    unprompted.sample_chunk(model, (1, "task"), 0, 2, "ddpm", 3)
    unconditional.create(UNET, SCHEDULER, seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_chunks_cover_every_index_once():
    covered = [i for first, count in paired.chunks(10, 4) for i in range(first, first + count)]
    assert covered == list(range(10))
