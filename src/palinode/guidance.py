"""Classifier-free guidance."""

import torch
from torch import Tensor

from palinode.models import Diffuser


class Guided:
    """A conditional model with fixed conditions, to be sampled like an unconditional one.

    predict(x_t, t) = e_0 + scale (e_c - e_0), both predictions from one doubled batch; scale 1 needs no e_0. seen:
    takes every x_t it is asked about.
    """

    def __init__(
        self, model: Diffuser, condition: Tensor, empty: Tensor, scale: float, seen: list[Tensor] | None = None
    ):
        self.model, self.scale, self.seen = model, scale, seen
        self.condition = condition
        self.both = torch.cat([empty.expand_as(condition), condition])
        self.schedule, self.shape, self.device = model.schedule, model.shape, model.device

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen.append(x_t)
        if self.scale == 1:
            return self.model.predict(x_t, t, self.condition)
        without, given = self.model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), self.both).chunk(2)
        return without + self.scale * (given - without)
