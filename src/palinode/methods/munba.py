"""MUNBa: forget and retain gradients as two players who bargain."""

from dataclasses import dataclass

from torch import Tensor

from palinode.methods import Source
from palinode.methods._gradients import bargain
from palinode.methods._relabel import Relabel


@dataclass
class MUNBa(Relabel):
    """g = a_r g_retain + a_f g_forget, a_i = 1 / (||g_i|| sqrt(1 + cos)), the Nash point of the two.

    g_retain from the denoising loss on what is kept, g_forget from ||sg eps_theta(a_t, c_anchor) - eps_theta(a_t,
    c_a)||^2. The rule has no scale, so a weight on a loss would change nothing.
    """

    source = Source(
        paper="Wu and Harandi: MUNBa, Machine Unlearning via Nash Bargaining",
        arxiv="2411.15537",
        venue="ICCV 2025",
        equation="the closed form of the bargaining point (G^T G) a = 1/a for two players",
        repository="JingWu321/MUNBa at 7038772",
        deviations=(
            "The weights are written by norms and angle, without the 1e-8 in the repository's denominators.",
            "The fallback g_retain + g_forget / 2 starts at cos = -1 + 1e-4; the repository's at a weight below 0.",
            "The target is relabelled as the task's anchor; the repository takes the next class.",
            "The repository's optional L1 penalty on the weights is left out.",
        ),
    )

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        g, a_r, a_f = bargain(grads["retain"], grads["forget"])
        return g, {"a_r": a_r, "a_f": a_f}
