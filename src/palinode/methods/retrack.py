"""ReTrack: the denoising trajectory of a forgotten picture redirected to the retained pictures nearest to it."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import BatchLike, Method, Source
from palinode.models.denoiser import Denoiser


@dataclass
class ReTrack(Method):
    """lam E sum_k p_k ||v_k - eps_theta(a_t, t)||^2 + (1 - lam) E ||eps - eps_theta(x_t, t)||^2.

    v_k = (a_t - gamma_t x_k) / sigma_t: the noise that would explain a_t as a noised x_k; p_k = softmax_k(-||v_k||^2 /
    2): the posterior over the neighbours x_k of a in X\\A. The two terms have a t and noise of their own. There is no
    ascent.
    """

    source = Source(
        paper="Shi et al.: Data Unlearning in Diffusion Models through Redirecting the Denoising Trajectory (ReTrack)",
        arxiv="2509.13007",
        venue="AISTATS 2026",
        equation="the importance-weighted loss over nearest neighbours, with the retain term; read from its code",
        repository="sqt24/ReTrack at a756e6f",
        compared=(
            "The loss agrees to 2e-4 and the gradient to 1.3e-4 of their size at lam 1, both to 3e-5 at lam 0.005.",
            "What differs is its float32 noise schedule, at the smallest time steps; in float64 losses agree to 5e-8.",
            "The ten nearest neighbours are the same.",
        ),
        deviations=(
            "The posterior is computed in float64; the repository's is float32.",
            "Latents are posterior means; the repository draws one sample of each picture's posterior, once.",
            "The paper's text was not at hand; no number of its tables is claimed.",
        ),
    )
    needs = frozenset({"unconditional", "neighbours"})

    lam: Annotated[float, Field(ge=0, le=1)] = 0.005

    def losses(self, model: Denoiser, batch: BatchLike) -> dict[str, Tensor]:
        assert batch.neighbours is not None
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, other_eps, other_t)
        gamma = model.schedule.gamma.to(a_t)[other_t].view(-1, 1, 1, 1, 1)
        sigma = model.schedule.sigma.to(a_t)[other_t].view(-1, 1, 1, 1, 1)
        v = (a_t.unsqueeze(1) - gamma * batch.neighbours) / sigma
        p = posterior(v).to(v)
        errors = (v - model.predict(a_t, other_t).unsqueeze(1)).square().flatten(2).sum(2)
        return {
            "retain": (batch.eps - model.predict(x_t, batch.t)).square().sum() / len(x_t),
            "forget": (p * errors).sum() / len(a_t),
        }

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return self.lam * grads["forget"] + (1 - self.lam) * grads["retain"], {}


def posterior(v: Tensor) -> Tensor:
    """softmax_k(-||v_k||^2 / 2), float64 [B, K]; v [B, K, C, H, W]."""
    return torch.softmax(-0.5 * v.double().square().flatten(2).sum(2), dim=1)
