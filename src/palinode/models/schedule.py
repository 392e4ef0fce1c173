"""The forward process q(x_t | x) = N(gamma_t x, sigma_t^2 I), gamma_t = sqrt(alpha_bar_t), sigma_t = sqrt(1 -
alpha_bar_t)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palinode.core.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """A discrete noise schedule.

    alpha_bar: float64 [T], strictly decreasing, in (0, 1); clip: x0 is clipped to [-1, 1] when sampling; final:
    alpha_bar where DDIM ends, 1 (at x_0) or alpha_bar[0] (`set_alpha_to_one: false`, as Stable Diffusion 1.x has it).
    """

    alpha_bar: Tensor
    clip: bool = True
    final: float = 1.0

    @classmethod
    def from_config(cls, config: dict, clip: bool = True) -> "Schedule":
        """Read a diffusers scheduler_config.json; UserError for what this package does not implement.

        clip: what holds where the configuration does not say it; latents are not to be clipped.
        """
        steps = config["num_train_timesteps"]
        kind = config["beta_schedule"]
        start = config["beta_start"]
        end = config["beta_end"]
        if config.get("prediction_type", "epsilon") != "epsilon":
            raise UserError(
                f"scheduler: prediction_type {config['prediction_type']!r} is not supported, only 'epsilon'"
            )
        if kind == "linear":
            beta = torch.linspace(start, end, steps, dtype=torch.float64)
        elif kind == "scaled_linear":
            beta = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        else:
            raise UserError(f"scheduler: beta_schedule {kind!r} is not supported, only 'linear' and 'scaled_linear'")
        alpha_bar = torch.cumprod(1 - beta, 0)
        final = 1.0 if config.get("set_alpha_to_one", True) else float(alpha_bar[0])
        return cls(alpha_bar, bool(config.get("clip_sample", clip)), final)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @property
    def gamma(self) -> Tensor:
        """sqrt(alpha_bar), float32 [T]."""
        return self.alpha_bar.sqrt().float()

    @property
    def sigma(self) -> Tensor:
        """sqrt(1 - alpha_bar), float32 [T]."""
        return (1 - self.alpha_bar).sqrt().float()

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = gamma_t x + sigma_t eps; x, eps [B, ...], t int64 [B]."""
        shape = (-1,) + (1,) * (x.dim() - 1)
        return self.gamma.to(x.device)[t].view(shape) * x + self.sigma.to(x.device)[t].view(shape) * eps

    def predict_x0(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The x that a noise prediction stands for: (x_t - sigma_t eps) / gamma_t, unclipped."""
        shape = (-1,) + (1,) * (x_t.dim() - 1)
        return (x_t - self.sigma.to(x_t.device)[t].view(shape) * eps) / self.gamma.to(x_t.device)[t].view(shape)


def leading_timesteps(total: int, steps: int) -> list[int]:
    """`steps` time steps of 0..total-1, descending, evenly spaced from 0 ("leading" in diffusers)."""
    if not 1 <= steps <= total:
        raise UserError(f"sampler: steps must lie in 1..{total}, not {steps}")
    return [i * (total // steps) for i in reversed(range(steps))]
