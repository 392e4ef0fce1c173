"""NegGrad: gradient ascent on the forget set alone."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from palinode.methods import BatchLike, Method, Source
from palinode.models.denoiser import Denoiser


@dataclass
class NegGrad(Method):
    """Minimise -superfactor * L_A, L_A = E_{a in A} E_{t,eps} ||eps - eps_theta(a_t, t)||^2.

    With the global gradient clip always active and AdamW, a constant superfactor hardly changes the path; the official
    MNIST value is 0.01.
    """

    source = Source(
        paper="Alberti et al.: Data Unlearning in Diffusion Models (its baseline NegGrad)",
        arxiv="2503.01034",
        venue="ICLR 2025",
        equation="the loss -L_A, ascent on the forget set alone",
        repository="claserken/SISS at af2a29c (simple_neg_del)",
        compared=("The direction agrees to 1e-6 of its size.",),
        deviations=(
            "A conditional model is told what the forget image shows.",
            "EraseDiff's public code (JingWu321/EraseDiff at 14f4e98) ascends on the retain set under this name.",
        ),
    )

    superfactor: Annotated[float, Field(gt=0)] = 0.01

    def losses(self, model: Denoiser, batch: BatchLike) -> dict[str, Tensor]:
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        return {"forget": (batch.eps - model.predict(a_t, batch.t, batch.c_a)).square().sum() / len(batch.a)}

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return -self.superfactor * grads["forget"], {}
