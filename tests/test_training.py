"""The training loop: gradients, resume, clipping, averages, schedules."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, UNET, training

from palinode import methods
from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.models import unconditional
from palinode.training import loop
from palinode.training.batches import Batches
from palinode.training.loop import Gradients, train

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)


def run(settings, scratch, method="siss", stop_at=None, options=None):
    """Train the small model; `stop_at` raises before that step, as a kill would."""
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    batches = Batches(IMAGES[:16], IMAGES[16:17], 1000, settings.batch, settings.accumulate, "cpu", ("test", 0))

    def interrupted(step):
        if step == stop_at:
            raise KeyboardInterrupt
        return batches(step)

    history = train(model, methods.load(method, options), interrupted, settings, scratch, "test")
    return [p.detach().clone() for p in model.net.parameters()], history, model.nfe


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    return lambda: Scratch("test", [])


@pytest.mark.parametrize("ema", [False, True])
def test_an_interrupted_run_continues_to_the_same_bytes(scratch, ema):
    average = type("Ema", (), {})() if ema else None
    if ema:
        average.__dict__.update(limit=0.9, inv_gamma=1.0, power=0.75)
    settings = training(steps=20, ema=average, decay="cosine", warmup=3)
    with scratch() as folder:
        whole = run(settings, folder)
    with pytest.raises(KeyboardInterrupt), scratch() as folder:
        run(settings, folder, stop_at=13)
    with scratch() as folder:
        assert folder.checkpoint.load()["step"] == 12
        resumed = run(settings, folder)
    assert all(torch.equal(a, b) for a, b in zip(whole[0], resumed[0], strict=True))
    assert whole[1:] == resumed[1:]


def test_a_slow_training_is_saved_every_ten_minutes_too(scratch, monkeypatch):
    clock = itertools.count(step=601)
    monkeypatch.setattr("palinode.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(KeyboardInterrupt), scratch() as folder:
        run(training(steps=20), folder, stop_at=13)
    with scratch() as folder:
        assert folder.checkpoint.load()["step"] == 13


def test_accumulated_micro_batches_equal_their_mean(scratch):
    """Two micro-batches of 4 make the gradient of the mean of both."""
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    batches = Batches(IMAGES[:16], IMAGES[16:17], 1000, 4, 2, "cpu", ("test", 0))
    method = methods.load("naive_deletion")
    losses = [method.losses(model, batch)["x"] for batch in batches(0)]
    expected = torch.autograd.grad(sum(losses) / 2, list(model.net.parameters()))
    with scratch() as folder:
        settings = training(steps=1, accumulate=2)
        _, history, _ = run(settings, folder, method="naive_deletion")
    norm = torch.cat([g.flatten() for g in expected]).norm()
    assert history[0]["norm_x"] == pytest.approx(float(norm), rel=1e-5)


def test_the_first_step_is_that_of_adamw_with_clipping(scratch):
    """Against torch's own clip_grad_norm_ and AdamW."""
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    parameters = list(model.net.parameters())
    batch = next(Batches(IMAGES[:16], IMAGES[16:17], 1000, 4, 1, "cpu", ("test", 0))(0))
    methods.load("naive_deletion").losses(model, batch)["x"].backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    torch.optim.AdamW(parameters, 1e-3, (0.95, 0.999), weight_decay=1e-6).step()
    with scratch() as folder:
        ours, _, _ = run(training(steps=1), folder, method="naive_deletion")
    for mine, theirs in zip(ours, parameters, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-6)


def test_batches_do_not_depend_on_the_method_or_on_history():
    make = Batches(IMAGES[:16], IMAGES[16:17], 1000, 4, 1, "cpu", ("root", "task", "unlearn", 0))
    first, again = next(make(7)), next(make(7))
    assert torch.equal(first.x, again.x) and torch.equal(first.eps, again.eps) and torch.equal(first.t, again.t)
    assert not torch.equal(first.eps, next(make(8)).eps)


def test_times_cover_the_whole_schedule():
    """The official code's CelebA-HQ and SD scripts draw t = 999 always; ours is uniform on 0..T-1."""
    make = Batches(IMAGES[:16], IMAGES[16:17], 1000, 64, 1, "cpu", ("root",))
    t = torch.cat([next(make(step)).t for step in range(200)])
    assert t.min() == 0 and t.max() == 999 and abs(float(t.float().mean()) - 499.5) < 10


def test_a_gradient_that_is_not_finite_ends_the_run_with_one_line(scratch):
    with scratch() as folder:
        pass
    settings = training(steps=40, lr=1e30)
    with pytest.raises(UserError, match="not finite at step"), scratch() as folder:
        run(settings, folder, method="neggrad")


def test_gradient_checkpointing_changes_nothing_but_memory(scratch):
    with scratch() as folder:
        plain, _, _ = run(training(steps=2), folder)
    with scratch() as folder:
        saved, _, _ = run(training(steps=2, gradient_checkpointing=True), folder)
    for a, b in zip(plain, saved, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_bf16_runs_and_stays_near_fp32(scratch):
    model, low = unconditional.create(UNET, SCHEDULER, 1), unconditional.create(UNET, SCHEDULER, 1)
    low.precision = "bf16"
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([0, 10, 500, 999])
    assert low.predict(x, t).dtype == torch.float32
    torch.testing.assert_close(model.predict(x, t), low.predict(x, t), rtol=0.1, atol=0.1)


def test_two_processes_on_one_piece_of_work_are_refused(scratch):
    with scratch(), pytest.raises(UserError, match="another process is already working on test"), scratch():
        pass


@pytest.mark.parametrize(("method", "buffers"), [("siss", {"x", "a"}), ("erasediff_siss", {"x", "a", "update"})])
def test_an_update_made_in_place_takes_no_buffer_of_its_own(scratch, monkeypatch, method, buffers):
    made = []
    monkeypatch.setattr(loop, "Gradients", lambda parameters: made.append(Gradients(parameters)) or made[0])
    with scratch() as folder:
        run(training(steps=1), folder, method)
    assert made[0].flat.keys() == buffers
