"""EraseDiff as the SISS paper's baseline: uniform-noise target on paired noise, multi-objective weight."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from palinode.methods import BatchLike, Method, Source
from palinode.methods._gradients import constrain
from palinode.models.denoiser import Denoiser


@dataclass
class EraseDiffSISS(Method):
    """L_{X\\A} + lam E_a ||eps_f - eps_theta(a_t, t)||^2, eps_f ~ U[0,1)^d drawn fresh.

    x_t and a_t share eps and t pairwise. lam = max(eta - <g_retain, g_forget> / ||g_forget||^2, 0); eta 1e-3 on MNIST
    and CelebA-HQ, 1e-2 on Stable Diffusion. Not the EraseDiff authors' algorithm: that is `erasediff`.
    """

    source = Source(
        paper="Alberti et al.: Data Unlearning in Diffusion Models (its baseline EraseDiff)",
        arxiv="2503.01034",
        venue="ICLR 2025",
        equation="the SISS authors' form of EraseDiff (arXiv 2401.05779), with the weight of its Theorem 3.1",
        repository="claserken/SISS at af2a29c (erasediff)",
        compared=("Losses and gradients agree to 6e-7 of their size, and the weight to 5e-8.",),
        deviations=(
            "The weight follows the rule at every step, as in the present code.",
            "An earlier CelebA-HQ script (fc538a6) holds the forget gradient at a constant norm instead.",
            "Which of the two made the paper's row is not known.",
        ),
    )
    needs = frozenset({"unconditional"})

    eta: Annotated[float, Field(ge=0)] = 1e-3

    def losses(self, model: Denoiser, batch: BatchLike) -> dict[str, Tensor]:
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        size = len(batch.x)
        return {
            "retain": (batch.eps - model.predict(x_t, batch.t)).square().sum() / size,
            "forget": (batch.uniform() - model.predict(a_t, batch.t)).square().sum() / size,
        }

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        g, lam = constrain(grads["retain"], grads["forget"], self.eta)
        return g, {"lam": lam}
