"""Models with a fixed condition: classifier-free guidance for sampling, and a plain one for training."""

from typing import Any

import torch
from torch import Tensor

from palinode.models.denoiser import Denoiser


class Guided:
    """A conditional model with fixed conditions, to be sampled like an unconditional one.

    predict(x_t, t) = e_0 + scale (e_c - e_0), both predictions from one doubled batch; scale 1 needs no e_0. condition:
    [B, ...]; null: the null prompt's, [1, ...].
    """

    def __init__(self, model: Denoiser, condition: Tensor, null: Tensor, scale: float):
        self.model = model
        self.scale = scale
        self.condition = condition
        self.both = torch.cat([null.expand_as(condition), condition])
        self.schedule = model.schedule
        self.shape = model.shape

    @property
    def device(self) -> torch.device:
        return self.model.device

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self.scale == 1:
            return self.model.predict(x_t, t, self.condition)
        doubled = self.model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), self.both)
        unconditional, conditional = doubled.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


class Wrapper:
    """A model that is another model in all but what a subclass changes."""

    def __init__(self, model: Any):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class FixedCondition(Wrapper):
    """A conditional model with one condition [1, ...] for whoever gives none.

    Methods written for unconditional models call `predict(x_t, t)` on it unchanged.
    """

    def __init__(self, model: Denoiser, condition: Tensor):
        super().__init__(model)
        self.fixed = condition

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is None:
            condition = self.fixed.expand(len(x_t), *self.fixed.shape[1:])
        return self.model.predict(x_t, t, condition)

    def frozen(self) -> "FixedCondition":
        """A copy that does not train, with the same condition."""
        return FixedCondition(self.model.frozen(), self.fixed)
