"""SISS without importance sampling: the two terms of the objective, each with its own forward pass."""

from dataclasses import dataclass

from torch import Tensor

from palinode.methods import BatchLike, Source
from palinode.methods._superfactor import Superfactor
from palinode.models.denoiser import Denoiser


@dataclass
class SISSNoIS(Superfactor):
    """L_{X\\A} - s k/(n-k) L_A with two forward passes, sharing eps and t pairwise.

    The kept-set form: x is drawn from X\\A, so the coefficient of the x term is 1.
    """

    source = Source(
        paper="Alberti et al.: Data Unlearning in Diffusion Models (SISS, No IS)",
        arxiv="2503.01034",
        venue="ICLR 2025",
        equation="the ablation No IS: the same loss without importance sampling; superfactor of Appendix A.3",
        repository="claserken/SISS at af2a29c (double_forward_with_neg_del)",
        compared=("Both losses and both gradients agree to 6e-7 of their size.",),
        deviations=(
            "The forget gradient is held at a constant norm, as in the code that made the paper's numbers.",
            "The paper's text has a share of the retain gradient's norm instead (option `ratio`).",
            "Time steps are uniform; the official CelebA-HQ and Stable Diffusion scripts draw 999 only.",
        ),
    )
    needs = frozenset({"unconditional"})

    def losses(self, model: Denoiser, batch: BatchLike) -> dict[str, Tensor]:
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        size = len(batch.x)
        return {
            "retain": (batch.eps - model.predict(x_t, batch.t)).square().sum() / size,
            "forget": (batch.eps - model.predict(a_t, batch.t)).square().sum() / size,
        }
