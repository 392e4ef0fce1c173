"""MUNBa: forget and retain gradients as two players who bargain."""

from dataclasses import dataclass

from palinode.gradients import nash
from palinode.methods._relabel import Relabel


@dataclass
class MUNBa(Relabel):
    """g = a_r g_r + a_f g_f, a_i = 1 / (||g_i|| sqrt(1 + cos)), the Nash point of the two (MUNBa; digest 6).

    g_r from L_eps on what is kept, g_f from ||sg eps_theta(a_t, c_m) - eps_theta(a_t, c_a)||^2: the anchor's prediction
    in the target's place. The rule is scale-free, so a weight on a loss would change nothing.
    """

    def combine(self, grads):
        g, a_r, a_f = nash(grads["r"], grads["f"])
        return g, {"a_r": a_r, "a_f": a_f}
