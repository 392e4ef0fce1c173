"""SalUn: relabelling of the target, in the weights that matter to it."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import Source
from palinode.methods._relabel import Relabel
from palinode.models.denoiser import Denoiser


def select_salient(saliency: Tensor, share: float) -> Tensor:
    """1 for the `share` of weights with the largest saliency, over all together, 0 for the others."""
    count = int(share * saliency.numel())
    mask = torch.zeros_like(saliency)
    mask[saliency.topk(count).indices] = 1
    return mask


@dataclass
class SalUn(Relabel):
    """mask * (g_forget + alpha g_retain), mask = the top `share` of |sum over forget batches of grad L|.

    L = ||eps - eps_guided(a_t, c_a)||^2 with the original model. alpha weighs the retain loss, in the same unit as the
    forget loss. The saliency is computed once a task.
    """

    source = Source(
        paper="Fan et al.: SalUn, Empowering Machine Unlearning via Gradient-based Weight Saliency",
        arxiv="2310.12508",
        venue="ICLR 2024",
        equation="random labelling of the forget set with the retain loss, under the weight saliency mask",
        repository="OPTML-Group/Unlearn-Saliency at a6e89fd",
        compared=("The mask is the same; the saliency agrees to 2e-6 of its largest entry.",),
        deviations=(
            "The mask is applied before the gradient is clipped; the repository's pixel code clips first.",
            "Saliency is of batches drawn with replacement; the repository makes one pass over the forget set.",
            "Weight decay also moves masked weights.",
            "The target is relabelled as the task's anchor; the repository takes the next class.",
            "Both losses are sums over pixels; in that unit the repository's alpha 1e-3 for CIFAR-10 is about 3.",
            "Every step draws new batches; the Stable Diffusion code repeated the first one before 716e618.",
        ),
    )
    needs = frozenset({"anchor", "saliency"})

    alpha: Annotated[float, Field(ge=0)] = 1.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.5

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        self._mask = select_salient(model.trained(statistics["saliency"]), self.share)

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return self._mask * (grads["forget"] + self.alpha * grads["retain"]), {}
