"""UCE: the keys and values of the target's name replaced by those of the anchor's, in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palinode.methods import Method


def edited(w_0: Tensor, c: Tensor, g: Tensor, kept: Tensor, a: float, b: float, lam: float) -> Tensor:
    """argmin_W a sum ||W c_i - W_0 g_i||^2 + b sum ||W c_j - W_0 c_j||^2 + lam ||W - W_0||^2.

    w_0 [out, in]; c, g [n, in], the states to edit and those to map them to; kept [k, in], states to keep. W = (a sum
    W_0 g_i c_i^T + b sum W_0 c_j c_j^T + lam W_0) (a sum c_i c_i^T + b sum c_j c_j^T + lam I)^-1, in float64.
    """
    w_0, c, g, kept = (v.double() for v in (w_0, c, g, kept))
    held = b * kept.T @ kept + lam * torch.eye(w_0.shape[1], dtype=w_0.dtype)
    return torch.linalg.solve(a * c.T @ c + held, w_0 @ (a * g.T @ c + held), left=False)


@dataclass(frozen=True)
class UCE(Method):
    """`edited` on every key and value matrix of the cross-attention, for the state of the last word of each name
    (digest, DoCo 6): the target's is mapped to the anchor's, those of all other things are kept. No training steps.
    """

    a: float = 1.0
    b: float = 1.0
    lam: float = 0.5
    needs_anchor = closed_form = True

    @torch.no_grad()
    def edit(self, model, names: dict[str, list[str]]) -> None:
        """names: prompts that end in the name, of the target, of the anchor and of all that is kept."""
        c, g, kept = (model.last_states(names[key]) for key in ("target", "anchor", "kept"))
        for name, weight in model.net.named_parameters():
            if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                weight.copy_(edited(weight.cpu(), c.cpu(), g.cpu(), kept.cpu(), self.a, self.b, self.lam))
