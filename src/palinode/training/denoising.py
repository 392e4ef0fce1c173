"""Plain objectives with one loss: what base models, classifiers and attacks are trained by."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from palinode.methods import Method
from palinode.models.denoiser import Denoiser


@dataclass
class ConditionalBatch:
    """x, t, eps as in `training.batches.Batch`; prompt: what each image shows, as `Denoiser.states` takes it."""

    x: Tensor
    t: Tensor
    eps: Tensor
    prompt: Tensor


class OneLoss(Method):
    """Plain descent on one loss, named `objective`."""

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["objective"], {}


@dataclass
class Denoise(OneLoss):
    """E w(t) ||eps - eps_theta(x_t, t, c)||^2 of a conditional model; weights: w(t), [T], 1 where there are none."""

    model: Denoiser
    weights: Tensor | None = None

    def losses(self, model: Any, batch: ConditionalBatch) -> dict[str, Tensor]:
        x_t = self.model.schedule.add_noise(batch.x, batch.eps, batch.t)
        eps = self.model.predict(x_t, batch.t, self.model.states(batch.prompt))
        errors = (eps - batch.eps).square().flatten(1).sum(1)
        weighted = errors if self.weights is None else self.weights[batch.t] * errors
        return {"objective": weighted.mean()}
