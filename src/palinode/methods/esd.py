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
    """||eps_theta(z_t, c) - [eps_0(z_t, c) - eta (eps_0(z_t, c) - eps_0(z_t, null))]||^2.

    z_t: states of the original model's own sampling under the target's prompt c, so that no pictures are needed. Which
    weights train makes the variant: esd-x cross-attention, esd-u all others, esd-x-strict its keys and values.
    """

    source = Source(
        paper="Gandikota et al.: Erasing Concepts from Diffusion Models (ESD)",
        arxiv="2303.07345",
        venue="ICCV 2023",
        equation="the fine-tuning objective with negative guidance, in the repository's present form",
        repository="rohitgandikota/erasing at 25613d2",
        deviations=(
            "Guidance starts from the conditional prediction, as in the present repository, whose eta is 2.",
            "The paper starts from the unconditional one: its eta 1 is eta 2 here.",
            "At eta 1 the target is the unconditional prediction.",
            "Trajectories were drawn beforehand; the repository draws one at every step.",
            "The squared error is summed over pixels; the repository averages.",
        ),
    )
    needs = frozenset({"trajectory"})

    eta: Annotated[float, Field(ge=0)] = 1.0

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        self._original = model.frozen()

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        with torch.no_grad():
            conditional = self._original.predict(batch.traj, batch.t_traj, batch.c_traj)
            unconditional = self._original.predict(batch.traj, batch.t_traj, batch.c_null.expand_as(batch.c_traj))
        target = conditional - self.eta * (conditional - unconditional)
        prediction = model.predict(batch.traj, batch.t_traj, batch.c_traj)
        return {"forget": (target - prediction).square().sum() / len(batch.traj)}

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["forget"], {}
