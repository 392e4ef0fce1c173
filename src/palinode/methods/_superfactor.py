"""The rule SISS and its ablation share: how strongly the forget gradient is subtracted."""

from dataclasses import dataclass

from palinode.gradients import hold_norm_, hold_ratio_
from palinode.methods import Method


@dataclass(frozen=True)
class Superfactor(Method):
    """g = g_x - s g_a, s adapted at every optimiser step.

    ratio: ||s g_a|| / ||g_x||, the paper's "about 10 %" rule; norm: hold ||s g_a|| at this constant instead, the
    official code's `scaling_norm` (MNIST 5, CelebA-HQ 500, Stable Diffusion 750: they mean nothing at another loss
    scale). The constants n/(n-k) and (1+s) k/(n-k) are absorbed by the rule, as in the official code.
    """

    ratio: float = 0.1
    norm: float | None = None

    def combine(self, grads):
        g_x, g_a = grads["x"], grads["a"]
        g, s = hold_ratio_(g_x, g_a, self.ratio) if self.norm is None else hold_norm_(g_x, g_a, self.norm)
        return g, {"superfactor": s, "skipped": float(s == 0.0)}
