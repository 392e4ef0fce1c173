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
from palinode.methods import Method
from palinode.models import unconditional
from palinode.training import loop
from palinode.training.accumulation import EMA, Gradients
from palinode.training.batches import ImageBatches
from palinode.training.loop import train

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
EMA_SETTINGS = {"limit": 0.9, "inv_gamma": 1.0, "power": 0.75}


def image_batches(size: int = 4, accumulate: int = 1, key: tuple = ("test", 0)) -> ImageBatches:
    return ImageBatches(IMAGES[:16], IMAGES[16:17], 1000, size, accumulate, "cpu", key)


def run(settings, scratch, method="siss", stop_at=None, watch=None):
    """Train the small model; `stop_at` raises before that step, as a kill would."""
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    batches = image_batches(settings.batch, settings.accumulate)

    def interrupted(step):
        if step == stop_at:
            raise KeyboardInterrupt
        return batches(step)

    chosen = methods.load(method, {"ratio": 0.1} if method == "siss" else {}) if isinstance(method, str) else method
    chosen.begin(model, {"seed": 1})
    history = train(model, chosen, interrupted, settings, scratch, "test", watch)
    return [p.detach().clone() for p in model.net.parameters()], history, model.nfe


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    return lambda: Scratch("test", [])


@pytest.mark.parametrize("ema", [None, EMA_SETTINGS])
def test_an_interrupted_run_continues_to_the_same_bytes(scratch, ema):
    settings = training(steps=20, ema=ema, decay="cosine", warmup=3)
    with scratch() as folder:
        whole = run(settings, folder)
    with pytest.raises(KeyboardInterrupt), scratch() as folder:
        run(settings, folder, stop_at=13)
    with scratch() as folder:
        assert folder.checkpoint.load()["step"] == 12
        resumed = run(settings, folder)
    assert all(torch.equal(a, b) for a, b in zip(whole[0], resumed[0], strict=True))
    assert whole[1:] == resumed[1:]


def test_a_superfactor_that_is_refreshed_continues_between_two_measurements(scratch):
    """The kill comes at step 13, the checkpoint at 12, the measurements at 10 and 15; each step has two batches."""
    settings = training(steps=20, accumulate=2)

    def refreshed():
        return methods.load("siss", {"norm": 1.0, "refresh": 5})

    with scratch() as folder:
        whole = run(settings, folder, refreshed())
    with pytest.raises(KeyboardInterrupt), scratch() as folder:
        run(settings, folder, refreshed(), stop_at=13)
    with scratch() as folder:
        resumed = run(settings, folder, refreshed())
    assert all(torch.equal(a, b) for a, b in zip(whole[0], resumed[0], strict=True))
    assert whole[1:] == resumed[1:]
    measured = [line["step"] for line in whole[1] if "loss_forget" in line]
    assert measured == [0, 5, 10, 15]


def test_a_slow_training_is_saved_every_ten_minutes_too(scratch, monkeypatch):
    clock = itertools.count(step=601)
    monkeypatch.setattr("palinode.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(KeyboardInterrupt), scratch() as folder:
        run(training(steps=20), folder, stop_at=13)
    with scratch() as folder:
        assert folder.checkpoint.load()["step"] == 13


def test_the_average_is_what_is_kept_and_shown(scratch):
    """An average that forgets at once is the last weights; while it is shown, evaluations are not counted."""
    shown = []
    with scratch() as folder:
        plain, _, _ = run(training(steps=20), folder)
    with scratch() as folder:
        averaged, _, nfe = run(training(steps=20, ema=EMA_SETTINGS), folder, watch=shown.append)
    assert shown == list(range(1, 21))
    assert any(not torch.equal(a, b) for a, b in zip(plain, averaged, strict=True))
    weights = [torch.zeros(3)]
    ema = EMA(weights, limit=0.5, inv_gamma=1.0, power=1.0)
    weights[0] += 1
    ema.update(weights, 0)
    assert ema.average[0].tolist() == [1.0] * 3, "the first step replaces the initial weights"
    weights[0] += 1
    ema.update(weights, 1)
    assert ema.average[0].tolist() == [1.5] * 3
    assert nfe["forward"] > 0


def test_what_a_watch_evaluates_is_not_counted(scratch):
    model = unconditional.create(UNET, SCHEDULER, seed=1)

    def watch(step: int) -> None:
        with torch.no_grad():
            model.predict(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))

    with scratch() as folder:
        method = methods.load("naive_deletion")
        train(model, method, image_batches(), training(steps=20), folder, "test", watch)
    assert model.nfe == {"forward": 80, "backward": 80}


def test_accumulated_micro_batches_equal_their_mean(scratch):
    """Two micro-batches of 4 make the gradient of the mean of both."""
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    method = methods.load("naive_deletion")
    mean = sum(method.losses(model, batch)["retain"] for batch in image_batches(accumulate=2)(0)) / 2
    expected = torch.autograd.grad(mean, list(model.net.parameters()))
    with scratch() as folder:
        settings = training(steps=1, accumulate=2)
        _, history, _ = run(settings, folder, method="naive_deletion")
    norm = torch.cat([g.flatten() for g in expected]).norm()
    assert history[0]["norm_retain"] == pytest.approx(float(norm), rel=1e-5)
    assert history[0]["loss_retain"] == pytest.approx(mean.item(), rel=1e-5)


def test_the_first_step_is_that_of_adamw_with_clipping(scratch):
    """Against torch's own clip_grad_norm_ and AdamW."""
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    parameters = list(model.net.parameters())
    batch = next(image_batches()(0))
    methods.load("naive_deletion").losses(model, batch)["retain"].backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    torch.optim.AdamW(parameters, 1e-3, (0.95, 0.999), weight_decay=1e-6).step()
    with scratch() as folder:
        ours, _, _ = run(training(steps=1), folder, method="naive_deletion")
    for mine, theirs in zip(ours, parameters, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-6)


def test_batches_do_not_depend_on_the_method_or_on_history():
    make = image_batches(key=("root", "task", "unlearn", 0))
    first = next(make(7))
    again = next(make(7))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.eps, again.eps)
    assert torch.equal(first.t, again.t)
    assert torch.equal(first.u, again.u)
    assert not torch.equal(first.eps, next(make(8)).eps)
    first_t, first_eps = first.redraw()
    again_t, again_eps = again.redraw()
    assert torch.equal(first_t, again_t)
    assert torch.equal(first_eps, again_eps)
    assert not torch.equal(first.eps, first_eps)
    assert torch.equal(first.uniform(), again.uniform()), "further draws continue the step's generator"


def test_times_cover_the_whole_schedule():
    """The official code's CelebA-HQ and SD scripts draw t = 999 always; ours is uniform on 0..T-1."""
    make = image_batches(size=64, key=("root",))
    t = torch.cat([next(make(step)).t for step in range(200)])
    assert t.min() == 0
    assert t.max() == 999
    assert abs(float(t.float().mean()) - 499.5) < 10


def test_a_gradient_that_is_not_finite_ends_the_run_with_one_line(scratch):
    with scratch() as folder:
        pass
    settings = training(steps=40, lr=1e30)
    with pytest.raises(UserError, match="not finite at step"), scratch() as folder:
        run(settings, folder, method="neggrad")


def test_a_method_may_leave_the_weights_as_they_are(scratch):
    class Still(Method):
        """Takes no step."""

        def losses(self, model, batch):
            return {"retain": model.predict(batch.x, batch.t).square().mean()}

        def combine(self, grads):
            return None, {"held": 1.0}

    before = list(unconditional.create(UNET, SCHEDULER, seed=1).net.parameters())
    with scratch() as folder:
        after, history, _ = run(training(steps=2, weight_decay=0.1), folder, method=Still())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [line["held"] for line in history] == [1.0, 1.0]


def test_warm_up_and_the_cosine_set_the_learning_rate():
    settings = training(steps=100, warmup=10, decay="cosine")
    factors = [loop._lr_factor(step, settings) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) < 1
    assert factors[50] == pytest.approx(0.5)
    assert factors[99] < 1e-3
    constant = training(steps=100, warmup=10)
    assert [loop._lr_factor(step, constant) for step in (4, 9, 50, 99)] == [0.5, 1, 1, 1]


def test_gradient_checkpointing_changes_nothing_but_memory(scratch):
    with scratch() as folder:
        plain, _, _ = run(training(steps=2), folder)
    with scratch() as folder:
        saved, _, _ = run(training(steps=2, gradient_checkpointing=True), folder)
    for a, b in zip(plain, saved, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_bf16_runs_and_stays_near_fp32():
    model = unconditional.create(UNET, SCHEDULER, 1)
    low = unconditional.create(UNET, SCHEDULER, 1)
    low.precision = "bf16"
    x = torch.randn(4, 1, 8, 8)
    t = torch.tensor([0, 10, 500, 999])
    assert low.predict(x, t).dtype == torch.float32
    torch.testing.assert_close(model.predict(x, t), low.predict(x, t), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("method", "buffers"), [("siss", {"retain", "forget"}), ("erasediff_siss", {"retain", "forget", "update"})]
)
def test_an_update_made_in_place_takes_no_buffer_of_its_own(scratch, monkeypatch, method, buffers):
    made = []
    monkeypatch.setattr(loop, "Gradients", lambda parameters: made.append(Gradients(parameters)) or made[0])
    with scratch() as folder:
        run(training(steps=1), folder, method)
    assert made[0].flat.keys() == buffers
