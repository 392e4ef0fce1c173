"""SalUn: relabelling of the target, in the weights that matter to it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palinode.methods._relabel import Relabel


def mask(saliency: Tensor, share: float) -> Tensor:
    """1 for the `share` of weights with the largest saliency, over all together, 0 for the others."""
    kept = round(share * saliency.numel())
    chosen = torch.zeros_like(saliency)
    chosen[saliency.topk(kept).indices] = 1
    return chosen


@dataclass
class SalUn(Relabel):
    """mask * (g_f + alpha g_r), mask = the top `share` of |sum over forget batches of grad L_eps| (SalUn; digest 6).

    alpha weighs the retain loss, in the same unit as the forget loss (the authors' 1e-3 is about 3 in that unit, since
    they sum one and average the other). The saliency is computed once a task.
    """

    alpha: float = 1.0
    share: float = 0.5
    needs_saliency = True

    def begin(self, model, helpers):
        self._mask = mask(model.trained(helpers["saliency"]), self.share)

    def combine(self, grads):
        return self._mask * (grads["f"] + self.alpha * grads["r"]), {}
