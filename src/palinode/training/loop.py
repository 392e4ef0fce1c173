"""The one training loop: base models, classifiers, attacks and every unlearning method go through it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.methods import Method
from palinode.params.fields import Training
from palinode.training.accumulation import EMA, Gradients, restore

SAVE_SECONDS = 600  # a checkpoint at least this often


class Trainable(Protocol):
    """What the loop sees of a model: the network whose parameters train, and the evaluations counted so far."""

    net: Any
    nfe: dict[str, int]


@dataclass
class Trained:
    """A network to train that is no `Denoiser`, or not all of one."""

    net: Any
    nfe: dict[str, int]


def train(
    model: Trainable,
    method: Method,
    batches: Callable[[int], Iterator[Any]],
    settings: Training,
    scratch: Scratch,
    label: str,
    watch: Callable[[int], None] | None = None,
) -> list[dict]:
    """Train `model` in place and return the logged history, one dictionary every `log_every` steps.

    A checkpoint goes to `scratch` after every twelfth of the steps and every ten minutes; running the same thing again
    continues from the last one to the same bytes. watch: called with the steps done after every twentieth of the
    training, while the model has its averaged weights; again for some of them when continuing. UserError when a
    gradient is not finite.
    """
    from tqdm import tqdm

    parameters = [p for p in model.net.parameters() if p.requires_grad]
    buffers = list(model.net.buffers())
    if settings.gradient_checkpointing:
        model.net.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    ema = None
    if settings.ema:
        ema = EMA(parameters, settings.ema.limit, settings.ema.inv_gamma, settings.ema.power)
    gradients = Gradients(parameters)
    seen: Any = model  # a `Denoiser`, unless the method is an objective of a network that is none

    # Continue from the last checkpoint, where there is one.
    first = 0
    history: list[dict] = []
    saved = scratch.checkpoint.load()
    if saved:
        first = saved["step"]
        history = saved["history"]
        model.nfe.update(saved["nfe"])
        method.load_state_dict(saved["method"])
        restore(parameters + buffers, saved["parameters"] + saved["buffers"])
        optimizer.load_state_dict(saved["optimizer"])
        if ema:
            restore(ema.average, saved["ema"])

    log_every = max(1, settings.steps // 200)
    watch_every = max(1, settings.steps // 20)
    save_every = math.ceil(settings.steps / 12)
    saved_at = time.monotonic()
    progress = tqdm(range(first, settings.steps), label, initial=first, total=settings.steps, mininterval=5)
    for step in progress:
        # Accumulate one gradient per loss over the micro-batches; only then combine them, since ratio rules and
        # quadratic programs are not linear.
        gradients.zero()
        parts: list[dict[str, Tensor]] = []
        for batch in batches(step):
            losses = method.losses(seen, batch)
            gradients.backward(losses, 1 / settings.accumulate)
            parts.append({name: loss.detach() for name, loss in losses.items()})
        # Read only here, since reading a number waits for the device.
        values = {f"loss_{name}": sum(part[name].item() / settings.accumulate for part in parts) for name in losses}
        values |= {f"norm_{name}": float(gradients.flat[name].norm()) for name in losses}
        update, logged = method.combine({name: gradients.flat[name] for name in losses})
        values |= logged

        # Clip the direction's norm, and let AdamW descend. A method may also take no step.
        if update is not None:
            norm = float(update.norm())
            if not math.isfinite(norm):
                reason = f"the gradient is not finite at step {step} ({values}); lower the learning rate"
                raise UserError(f"{label}: {reason}")
            scale = 1.0 if settings.clip is None else min(1.0, settings.clip / (norm + 1e-6))
            gradients.descend(update, scale)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * _lr_factor(step, settings)
            optimizer.step()
        method.after_step()
        if ema:
            ema.update(parameters, step)

        # Log, show, save.
        if step % log_every == 0 or step + 1 == settings.steps:
            history.append({"step": step, **values})
            shown = {name: f"{value:.4g}" for name, value in values.items() if name.startswith("loss")}
            progress.set_postfix(shown, refresh=False)
        if watch and (step + 1) % watch_every == 0:
            with _averaged(model, parameters, ema):
                watch(step + 1)
        due = (step + 1) % save_every == 0 or time.monotonic() - saved_at > SAVE_SECONDS
        if due and step + 1 < settings.steps:
            saved_at = time.monotonic()
            state = {
                "step": step + 1,
                "history": history,
                "nfe": model.nfe,
                "parameters": parameters,
                "buffers": buffers,
                "optimizer": optimizer.state_dict(),
                "ema": ema.average if ema else [],
                "method": method.state_dict(),
            }
            scratch.checkpoint.save(state)
    if ema:
        restore(parameters, ema.average)
    return history


def _lr_factor(step: int, settings: Training) -> float:
    """Linear warm-up, then constant or a cosine to zero."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "constant":
        return warm * 1.0
    return warm * (0.5 * (1 + math.cos(math.pi * step / settings.steps)))


@contextmanager
def _averaged(model: Trainable, parameters: list[Tensor], ema: EMA | None) -> Iterator[None]:
    """The model as it would be saved now; evaluations made meanwhile are not counted."""
    trained = [p.detach().clone() for p in parameters]
    nfe = dict(model.nfe)
    if ema:
        restore(parameters, ema.average)
    yield
    restore(parameters, trained)
    model.nfe.update(nfe)
