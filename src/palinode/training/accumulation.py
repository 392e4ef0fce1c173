"""Flat gradients by the name of their loss, and a running average of weights."""

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


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


class EMA:
    """Exponential moving average of the weights; decay(step) = min(limit, 1 - (1 + step/inv_gamma)^-power)."""

    def __init__(self, parameters: list[Tensor], limit: float, inv_gamma: float, power: float):
        self.limit = limit
        self.inv_gamma = inv_gamma
        self.power = power
        self.average = [p.detach().clone() for p in parameters]

    def update(self, parameters: list[Tensor], step: int) -> None:
        decay = min(self.limit, 1 - (1 + step / self.inv_gamma) ** -self.power)
        current: list[Tensor] = [p.detach() for p in parameters]
        get_ema_multi_avg_fn(decay)(self.average, current, 0)


@torch.no_grad()
def restore(targets: list[Tensor], values: list[Tensor]) -> None:
    """Copy values into tensors, one by one."""
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
