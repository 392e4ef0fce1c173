"""The pair of losses that SalUn and MUNBa share: relearn the target as the anchor, and keep the rest."""

from dataclasses import dataclass

import torch

from palinode.methods import Method


@dataclass
class Relabel(Method):
    """f = ||sg eps_theta(a_t, c_m) - eps_theta(a_t, c_a)||^2 and r = ||eps - eps_theta(x_t, c_x)||^2.

    The target's pictures a are predicted as under the anchor's caption, with the current weights.
    """

    needs_anchor = True

    def losses(self, model, batch):
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, other_eps, other_t)
        with torch.no_grad():
            anchor = model.predict(a_t, other_t, batch.c_m)
        return {
            "r": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(x_t),
            "f": (anchor - model.predict(a_t, other_t, batch.c_a)).square().sum() / len(a_t),
        }
