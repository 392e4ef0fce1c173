"""Function anchoring: the target's prediction overwritten by the anchor's, and all others held where they were."""

from dataclasses import dataclass
from typing import Literal

import torch

from palinode.methods import Method


@dataclass
class Anchored(Method):
    """||eps_theta(a_t, c_a) - eps_0(a_t, c_m)||^2 + beta ||eps_theta(x_t, c_x) - retained||^2, eps_0 the original.

    retained: "outputs", eps_0(x_t, c_x): what integrity measures is drift from the original's outputs; "noise", the
    true noise, the twin that shows what this changes. This project's own form of an integrity-keeping algorithm
    (digest 2.3, P1); the paper's own algorithms are not known to us.
    """

    beta: float = 1.0
    retained: Literal["outputs", "noise"] = "outputs"
    needs_anchor = True

    def begin(self, model, helpers):
        self._original = model.frozen()

    def losses(self, model, batch):
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, other_eps, other_t)
        with torch.no_grad():
            anchor = self._original.predict(a_t, other_t, batch.c_m)
            kept = self._original.predict(x_t, batch.t, batch.c_x) if self.retained == "outputs" else batch.eps
        return {
            "r": (kept - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(x_t),
            "f": (anchor - model.predict(a_t, other_t, batch.c_a)).square().sum() / len(a_t),
        }

    def combine(self, grads):
        return grads["f"] + self.beta * grads["r"], {}
