"""The one training loop: pretraining, retraining and every unlearning method go through it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.errors import UserError
from palinode.methods import Method
from palinode.models import Diffuser, to_model
from palinode.scratch import Scratch


@dataclass
class Batch:
    """One micro-batch, the same for every method at a given task, seed and step.

    x, a: retain and forget images [B, C, H, W] in [-1, 1]; t: int64 [B] in 0..T-1; eps: [B, C, H, W] ~ N(0, I);
    pick: [B] ~ U[0, 1). c_x, c_a: what a conditional model is told of x and a. Further draws continue the step's
    generator.
    """

    x: Tensor
    a: Tensor
    t: Tensor
    eps: Tensor
    pick: Tensor
    total: int
    generator: torch.Generator
    c_x: Tensor | None = None
    c_a: Tensor | None = None

    def redraw(self) -> tuple[Tensor, Tensor]:
        """An independent (t, eps)."""
        t, eps = draw_noise(self.x.shape, self.total, self.generator)
        return t.to(self.x.device), eps.to(self.x.device)

    def uniform(self) -> Tensor:
        """An independent tensor like x, ~ U[0, 1)."""
        return torch.rand(self.x.shape, generator=self.generator).to(self.x.device)


def draw_noise(shape: tuple, total: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """t int64 [B] ~ U{0..total-1} and eps ~ N(0, I) of `shape` [B, ...]."""
    return torch.randint(total, shape[:1], generator=generator), torch.randn(shape, generator=generator)


class Batches:
    """Micro-batches drawn with replacement from uint8 arrays; a step's batches depend on its number alone, so resuming
    needs no generator state."""

    def __init__(
        self, retain: np.ndarray, forget: np.ndarray, total: int, size: int, accumulate: int, device, key: tuple
    ):
        self.retain, self.forget, self.total = retain, forget, total
        self.size, self.accumulate, self.device, self.key = size, accumulate, device, key

    def __call__(self, step: int) -> Iterator[Batch]:
        generator = seeds.generator(*self.key, step)
        for _ in range(self.accumulate):
            x, a = (
                to_model(images[torch.randint(len(images), (self.size,), generator=generator).numpy()])
                for images in (self.retain, self.forget)
            )
            t, eps = draw_noise(x.shape, self.total, generator)
            pick = torch.rand(self.size, generator=generator)
            yield Batch(*(v.to(self.device) for v in (x, a, t, eps, pick)), self.total, generator)


class Gradients:
    """One flat gradient buffer per loss name; `backward` accumulates in place through views, nothing is cloned."""

    def __init__(self, parameters: list[Tensor]):
        self.parameters = parameters
        self.flat: dict[str, Tensor] = {}
        self._views: dict[str, list[Tensor]] = {}

    def target(self, name: str) -> None:
        """Make `name` the buffer that backward passes and the optimiser see."""
        if name not in self.flat:
            sizes = [p.numel() for p in self.parameters]
            flat = self.parameters[0].new_zeros(sum(sizes))
            self.flat[name] = flat
            self._views[name] = [v.view_as(p) for v, p in zip(flat.split(sizes), self.parameters, strict=True)]
        for parameter, view in zip(self.parameters, self._views[name], strict=True):
            parameter.grad = view

    def zero(self) -> None:
        for flat in self.flat.values():
            flat.zero_()

    def descend(self, update: Tensor, scale: float) -> None:
        """Let the optimiser see scale * update; an update that is one of the buffers is scaled where it is."""
        name = next((name for name, flat in self.flat.items() if flat is update), "update")
        self.target(name)
        torch.mul(update, scale, out=self.flat[name])

    def backward(self, losses: dict[str, Tensor], scale: float) -> None:
        """Add the gradient of each loss to its buffer. A loss without a graph (an empty term) adds nothing."""
        for position, (name, loss) in enumerate(losses.items()):
            self.target(name)
            if loss.requires_grad:
                (loss * scale).backward(retain_graph=position + 1 < len(losses))


@dataclass
class Trained:
    """A network to train that is no `Diffuser`, or not all of one: what the training loop sees of it."""

    net: torch.nn.Module
    passes: dict[str, int]


class EMA:
    """Exponential moving average of the weights; decay(step) = min(limit, 1 - (1 + step/inv_gamma)^-power)."""

    def __init__(self, parameters: list[Tensor], limit: float, inv_gamma: float, power: float):
        self.limit, self.inv_gamma, self.power = limit, inv_gamma, power
        self.average = [p.detach().clone() for p in parameters]

    def update(self, parameters: list[Tensor], step: int) -> None:
        decay = min(self.limit, 1 - (1 + step / self.inv_gamma) ** -self.power)
        torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - decay)


def train(
    model: Diffuser | Trained,
    method: Method,
    batches: Callable[[int], Iterator[Batch]],
    settings,
    scratch: Scratch,
    label: str,
    watch: Callable[[int], None] | None = None,
) -> list[dict]:
    """Train `model` in place and return the logged history, one dictionary every `log_every` steps.

    settings: the fields of `params.Training`. A checkpoint goes to `scratch` after every twelfth of the steps and every
    ten minutes; running the same thing again continues from the last one to the same bytes. watch: called with the
    steps done after every twentieth of the training, while the model has its averaged weights; again for some of them
    when continuing. UserError when a gradient is not finite.
    """
    from tqdm import tqdm

    parameters, buffers = [p for p in model.net.parameters() if p.requires_grad], list(model.net.buffers())
    if settings.gradient_checkpointing:
        model.net.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.lr, betas=tuple(settings.betas), weight_decay=settings.weight_decay, fused=True
    )
    ema = EMA(parameters, **vars(settings.ema)) if settings.ema else None
    gradients, history, first = Gradients(parameters), [], 0
    saved = scratch.checkpoint.load()
    if saved:
        first, history = saved["step"], saved["history"]
        model.passes.update(saved["passes"])
        method.load_state_dict(saved["method"])
        _restore(parameters + buffers, saved["parameters"] + saved["buffers"])
        optimizer.load_state_dict(saved["optimizer"])
        if ema:
            _restore(ema.average, saved["ema"])

    log_every = max(1, settings.steps // 200)
    watch_every = max(1, settings.steps // 20)
    save_every, saved_at = math.ceil(settings.steps / 12), time.monotonic()
    progress = tqdm(range(first, settings.steps), label, initial=first, total=settings.steps, mininterval=5)
    for step in progress:
        gradients.zero()
        values: dict[str, float] = {}
        for batch in batches(step):
            losses = method.losses(model, batch)
            gradients.backward(losses, 1 / settings.accumulate)
            for name, loss in losses.items():
                values[f"loss_{name}"] = values.get(f"loss_{name}", 0.0) + loss.item() / settings.accumulate
        values |= {f"norm_{name}": float(gradients.flat[name].norm()) for name in losses}
        update, logged = method.combine({name: gradients.flat[name] for name in losses})
        values |= logged
        if update is not None:
            norm = float(update.norm())
            if not math.isfinite(norm):
                reason = f"the gradient is not finite at step {step} ({values}); lower the learning rate"
                raise UserError(f"{label}: {reason}")
            gradients.descend(update, min(1.0, settings.clip / (norm + 1e-6)))
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * _lr_factor(step, settings)
            optimizer.step()
        method.after_step()
        if ema:
            ema.update(parameters, step)
        if step % log_every == 0 or step + 1 == settings.steps:
            history.append({"step": step, **values})
            progress.set_postfix({k: f"{v:.4g}" for k, v in values.items() if k.startswith("loss")}, refresh=False)
        if watch and (step + 1) % watch_every == 0:
            with _averaged(model, parameters, ema):
                watch(step + 1)
        due = (step + 1) % save_every == 0 or time.monotonic() - saved_at > 600
        if due and step + 1 < settings.steps:
            saved_at = time.monotonic()
            scratch.checkpoint.save({
                "step": step + 1, "history": history, "passes": model.passes, "parameters": parameters,
                "buffers": buffers,
                "optimizer": optimizer.state_dict(), "ema": ema.average if ema else [], "method": method.state_dict(),
            })  # fmt: skip
    if ema:
        _restore(parameters, ema.average)
    return history


def _lr_factor(step: int, settings) -> float:
    """Linear warm-up, then constant or a cosine to zero."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return warm * (0.5 * (1 + math.cos(math.pi * step / settings.steps)) if settings.decay == "cosine" else 1.0)


@contextmanager
def _averaged(model: Diffuser, parameters: list[Tensor], ema: EMA | None) -> Iterator[None]:
    """The model as it would be saved now; passes made meanwhile are not counted."""
    trained, passes = [p.detach().clone() for p in parameters], dict(model.passes)
    if ema:
        _restore(parameters, ema.average)
    yield
    _restore(parameters, trained)
    model.passes.update(passes)


@torch.no_grad()
def _restore(targets: list[Tensor], values: list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
