"""Concept Ablation: on pictures of the anchor, predict for the target what is predicted for the anchor."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method, Source
from palinode.models.denoiser import Denoiser
from palinode.models.text_to_image import first_token_detached


@dataclass
class ConceptAblation(Method):
    """||sg eps_theta(m_t, c_anchor) - eps_theta(m_t, c_a)||^2 + w ||eps' - eps_theta(m_t', c_anchor)||^2.

    m: pictures that the original model draws of the anchor; c_anchor their prompts, c_a the same with the target's
    name. The teacher is the current model. w: of the anchor's own denoising loss, with a t and noise of its own.
    bos_detach: nothing is learnt from the keys and values of the first token. This is DoCo without its discriminator.
    """

    source = Source(
        paper="Kumari et al.: Ablating Concepts in Text-to-Image Diffusion Models (Concept Ablation)",
        arxiv="2303.13516",
        venue="ICCV 2023",
        equation="the model-based objective, with the optional regularisation on the anchor's pictures",
        repository="nupurkmr9/concept-ablation at c11fb1b",
        compared=("Keys and values detached at the first token give the same outputs and gradients.",),
        deviations=(
            "Squared errors are summed over pixels; the repository averages them over the valid part of a picture.",
            "Pictures are not augmented.",
            "The regularisation draws a new t and noise for the same pictures; the repository draws other pictures.",
            "In its diffusers code a weight of 1 of that term is w 1/4 here, since it sums the other over channels.",
            "The repository detaches the first token (option `bos_detach`).",
        ),
    )

    w: Annotated[float, Field(ge=0)] = 0.0
    bos_detach: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"anchor", "text"} if self.bos_detach else {"anchor"})

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        with first_token_detached(model.net, self.bos_detach):
            return self._losses(model, batch)

    def _losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        m_t = model.schedule.add_noise(batch.anchor, batch.eps, batch.t)
        with torch.no_grad():
            teacher = model.predict(m_t, batch.t, batch.c_anchor)
        losses = {"forget": (teacher - model.predict(m_t, batch.t, batch.c_a)).square().sum() / len(m_t)}
        if self.w:
            other_t, other_eps = batch.redraw()
            again = model.schedule.add_noise(batch.anchor, other_eps, other_t)
            losses["anchor"] = (other_eps - model.predict(again, other_t, batch.c_anchor)).square().sum() / len(m_t)
        return losses

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["forget"] + self.w * grads["anchor"] if self.w else grads["forget"], {}
