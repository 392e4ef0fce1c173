"""Naive deletion: keep training on the retain set alone."""

from dataclasses import dataclass

from torch import Tensor

from palinode.methods import BatchLike, Method, Source
from palinode.models.denoiser import Denoiser


@dataclass
class NaiveDeletion(Method):
    """Minimise L_{X\\A} = E_{x in X\\A} E_{t,eps} ||eps - eps_theta(x_t, t)||^2."""

    source = Source(
        paper="Alberti et al.: Data Unlearning in Diffusion Models (its baseline naive deletion)",
        arxiv="2503.01034",
        venue="ICLR 2025",
        equation="the loss L_{X\\A}; with a condition it is EraseDiff's baseline Finetune",
        repository="claserken/SISS at af2a29c (naive_del)",
        compared=("The gradient agrees to 6e-7 of its size.",),
        deviations=("A conditional model is told what the retain image shows.",),
    )

    def losses(self, model: Denoiser, batch: BatchLike) -> dict[str, Tensor]:
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        return {"retain": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(batch.x)}

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return grads["retain"], {}
