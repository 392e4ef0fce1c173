"""The pair of losses that SalUn and MUNBa share: relearn the target as the anchor, and keep the rest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method
from palinode.models.denoiser import Denoiser


@dataclass
class Relabel(Method):
    """forget = ||sg eps_theta(a_t, c_anchor) - eps_theta(a_t, c_a)||^2, retain = ||eps - eps_theta(x_t, c_x)||^2.

    The target's pictures a are predicted as under the anchor's prompt, with the current weights.
    """

    needs = frozenset({"anchor"})

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, other_eps, other_t)
        with torch.no_grad():
            relabelled = model.predict(a_t, other_t, batch.c_anchor)
        return {
            "retain": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(x_t),
            "forget": (relabelled - model.predict(a_t, other_t, batch.c_a)).square().sum() / len(a_t),
        }
