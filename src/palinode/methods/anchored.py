"""Function anchoring: the target's prediction overwritten by the anchor's, and all others held where they were."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method, Source
from palinode.models.denoiser import Denoiser


@dataclass
class Anchored(Method):
    """||eps_theta(a_t, c_a) - eps_0(a_t, c_anchor)||^2 + beta ||eps_theta(x_t, c_x) - retained||^2, eps_0 the original.

    retained: "outputs", eps_0(x_t, c_x): what integrity measures is drift from the original's outputs; "noise", the
    true noise, the twin that shows what this changes.
    """

    source = Source(
        paper="own form, after Schioppa et al.: Model Integrity when Unlearning with T2I Diffusion Models",
        arxiv="2411.02068",
        venue="arXiv preprint, 2024",
        equation="none: an own instance of an algorithm that keeps the model's integrity",
        deviations=("The paper's text and algorithms were not at hand; no number of its tables is claimed.",),
    )
    needs = frozenset({"anchor"})

    beta: Annotated[float, Field(ge=0)] = 1.0
    retained: Literal["outputs", "noise"] = "outputs"

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        self._original = model.frozen()

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, other_eps, other_t)
        with torch.no_grad():
            overwritten = self._original.predict(a_t, other_t, batch.c_anchor)
            kept = self._original.predict(x_t, batch.t, batch.c_x) if self.retained == "outputs" else batch.eps
        return {
            "retain": (kept - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(x_t),
            "forget": (overwritten - model.predict(a_t, other_t, batch.c_a)).square().sum() / len(a_t),
        }

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["forget"] + self.beta * grads["retain"], {}
