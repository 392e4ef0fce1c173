"""Selective Amnesia: a surrogate in the target's place, and weights that stay where they matter to the rest."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method, Source
from palinode.models.denoiser import Denoiser


@dataclass
class SelectiveAmnesia(Method):
    """E_m L_eps(m, c_a) + gamma E_x L_eps(x, c_x) + lam sum_i F_i (theta_i - theta0_i)^2.

    m: pictures of the anchor under the target's prompt, the surrogate; F: the diagonal Fisher information of the
    original model on what is kept, computed once a task.
    """

    source = Source(
        paper="Heng and Soh: Selective Amnesia, A Continual Learning Approach to Forgetting in Deep Generative Models",
        arxiv="2305.10120",
        venue="NeurIPS 2023",
        equation="the objective with a surrogate: surrogate, replay, and elastic weight consolidation",
        repository="clear-nus/selective-amnesia at b736571",
        compared=("The Fisher information agrees to 3e-6 of its largest entry.",),
        deviations=(
            "The surrogate is the task's anchor; for classes the repository takes uniform noise.",
            "Replay takes the task's retain images; the repository draws them from the original model.",
            "By default 100 time steps stand for all 1,000 in the Fisher information, which makes it 1.4 times larger.",
            "Fisher pictures are retained ones in [-1, 1]; the repository draws 5,000 of all classes, in [0, 1].",
            "Losses are sums over pixels, as in the repository's pixel code, whose lam 10 is the default.",
            "Its Stable Diffusion code averages over 16,384 latent numbers: its lam 50 is 50/16384 here.",
        ),
    )
    needs = frozenset({"anchor", "fisher"})

    gamma: Annotated[float, Field(ge=0)] = 1.0
    lam: Annotated[float, Field(ge=0)] = 10.0

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        self._fisher = model.trained(statistics["fisher"])
        self._start = model.weights().detach().clone()

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        m_t = model.schedule.add_noise(batch.anchor, other_eps, other_t)
        return {
            "retain": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(x_t),
            "forget": (other_eps - model.predict(m_t, other_t, batch.c_a)).square().sum() / len(m_t),
            "penalty": (self._fisher * (model.weights() - self._start).square()).sum(),
        }

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["forget"] + self.gamma * grads["retain"] + self.lam * grads["penalty"], {}
