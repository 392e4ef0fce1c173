"""The rule that SISS and its ablation share: how strongly the forget gradient is subtracted."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from palinode.methods import Method
from palinode.methods._gradients import hold_norm_, hold_ratio_


@dataclass
class Superfactor(Method):
    """g = g_retain - s g_forget, with s adapted: one of two rules, which has no default.

    norm: ||s g_forget|| is this constant, the official code's `scaling_norm` (MNIST 5, CelebA-HQ 500, Stable Diffusion
    750), which made the paper's numbers. It means nothing at another loss scale: `make norms` measures 10 % of the
    gradient norm of naive deletion. ratio: ||s g_forget|| / ||g_retain||. The constants n/(n-k) and (1+s) k/(n-k) are
    absorbed by either rule, as in the official code.
    """

    norm: Annotated[float, Field(gt=0)] | None = None
    ratio: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if (self.norm is None) == (self.ratio is None):
            raise ValueError("set either `norm`, which `make norms` measures for a task, or `ratio`")

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        if self.norm is not None:
            g, s = hold_norm_(grads["retain"], grads["forget"], self.norm)
        else:
            assert self.ratio is not None
            g, s = hold_ratio_(grads["retain"], grads["forget"], self.ratio)
        return g, {"superfactor": s, "skipped": float(s == 0.0)}
