"""The rule that SISS and its ablation share: how strongly the forget gradient is subtracted."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from palinode.methods import Method
from palinode.methods._gradients import hold_norm_, hold_ratio_


@dataclass
class Superfactor(Method):
    """g = g_retain - s g_forget, s adapted at every optimiser step.

    ratio: ||s g_forget|| / ||g_retain||, the paper's "about 10 %" rule; norm: hold ||s g_forget|| at this constant
    instead, the official code's `scaling_norm` (MNIST 5, CelebA-HQ 500, Stable Diffusion 750: they mean nothing at
    another loss scale). The constants n/(n-k) and (1+s) k/(n-k) are absorbed by the rule, as in the official code.
    """

    ratio: Annotated[float, Field(gt=0)] = 0.1
    norm: Annotated[float, Field(gt=0)] | None = None

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        if self.norm is None:
            g, s = hold_ratio_(grads["retain"], grads["forget"], self.ratio)
        else:
            g, s = hold_norm_(grads["retain"], grads["forget"], self.norm)
        return g, {"superfactor": s, "skipped": float(s == 0.0)}
