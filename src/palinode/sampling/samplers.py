"""DDPM and DDIM.

Own samplers, since pairs need one noise stream an image: diffusers' `DDPMScheduler` draws a step's noise for a batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from palinode.models.denoiser import NoisePredictor

Draw = Callable[[], Tensor]


def ddpm(model: NoisePredictor, x: Tensor, timesteps: list[int], draw: Draw) -> Tensor:
    """Ancestral sampling (DDPM, arXiv 2006.11239, Algorithm 2), respaced, with the "fixed small" variance.

    x: x_t at timesteps[0], [B, C, H, W]; timesteps descend; draw() is the step's noise. Returns x_0. As diffusers'
    DDPMScheduler: variance floored at 1e-20, no noise in the last step.
    """
    for t, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x = ddpm_step(model, x, t, previous, draw)
    return x


def ddpm_step(model: NoisePredictor, x: Tensor, t: int, previous: int, draw: Draw) -> Tensor:
    """One step of `ddpm`, from x_t to x at step `previous`; -1 stands for x_0."""
    abar = float(model.schedule.alpha_bar[t])
    abar_prev = float(model.schedule.alpha_bar[previous]) if previous >= 0 else 1.0
    alpha = abar / abar_prev
    x0, _ = _predict_x0(model, x, t)
    mean = (abar_prev**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - abar_prev) * x) / (1 - abar)
    variance = max((1 - abar_prev) / (1 - abar) * (1 - alpha), 1e-20)
    return mean + variance**0.5 * draw() if previous >= 0 else mean


def ddim(model: NoisePredictor, x: Tensor, timesteps: list[int], draw: Draw | None = None) -> Tensor:
    """Deterministic sampling (DDIM, arXiv 2010.02502, eta = 0); as `ddpm`, but no noise is drawn."""
    for t, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x = ddim_step(model, x, t, previous)
    return x


def ddim_step(model: NoisePredictor, x: Tensor, t: int, previous: int) -> Tensor:
    """One step of `ddim`, from x_t to x at step `previous`; -1 stands for x_0."""
    abar_prev = float(model.schedule.alpha_bar[previous]) if previous >= 0 else model.schedule.final
    x0, eps = _predict_x0(model, x, t)
    return abar_prev**0.5 * x0 + (1 - abar_prev) ** 0.5 * eps


SAMPLERS = {"ddpm": ddpm, "ddim": ddim}


def _predict_x0(model: NoisePredictor, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    abar = float(model.schedule.alpha_bar[t])
    eps = model.predict(x, torch.full((len(x),), t, device=x.device))
    x0 = (x - (1 - abar) ** 0.5 * eps) / abar**0.5
    return (x0.clamp(-1, 1) if model.schedule.clip else x0), eps
