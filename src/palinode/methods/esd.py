"""ESD: the target's prediction pushed away from the target, along the original model's own guidance."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method, Source
from palinode.models.denoiser import Denoiser


@dataclass
class ESD(Method):
    """||eps_theta(z_t, c) - [eps_0(z_t, null) - eta (eps_0(z_t, c) - eps_0(z_t, null))]||^2.

    z_t: a state of a fresh sampling trajectory of the original model under the target's prompt c, with `guidance`,
    stopped at random, so that no pictures are needed. Which weights train makes the variant: esd-x cross-attention,
    esd-u linear and convolutional layers outside it, esd-x-strict its keys and values.
    """

    source = Source(
        paper="Gandikota et al.: Erasing Concepts from Diffusion Models (ESD)",
        arxiv="2303.07345",
        venue="ICCV 2023",
        equation="the fine-tuning objective with negative guidance eta",
        repository="rohitgandikota/erasing at 25613d2",
        compared=(
            "With eta 1 for its 2, losses, gradients and weights after two to four Adam steps are the same numbers.",
            "The trained parameters are the same by name for esd-x, esd-x-strict and esd-u.",
        ),
        deviations=(
            "The repository counts its guidance from the conditional prediction: its 2 is eta 1 here.",
            "Prompts are the training prompts of the task; the repository takes the concept's name alone.",
            "Trajectories are DDIM's of the original model; the repository takes the pipeline's own sampler.",
            "The squared error is summed over pixels; the repository averages.",
        ),
    )
    needs = frozenset({"trajectory"})

    eta: Annotated[float, Field(ge=0)] = 1.0
    guidance: Annotated[float, Field(gt=0)] = 3.0

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        self._original = model.frozen()

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        assert batch.c_a is not None
        z_t, t = batch.trajectory_states(self._original, self.guidance)
        with torch.no_grad():
            conditional = self._original.predict(z_t, t, batch.c_a)
            unconditional = self._original.predict(z_t, t, batch.c_null.expand_as(batch.c_a))
        target = unconditional - self.eta * (conditional - unconditional)
        return {"forget": (target - model.predict(z_t, t, batch.c_a)).square().sum() / len(z_t)}

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["forget"], {}
