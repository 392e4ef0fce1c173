"""EraseDiff: the retain loss under a constraint on the forget loss, one quadratic program a step."""

from dataclasses import dataclass
from typing import Literal

import torch

from palinode.gradients import constrained, constrained_by_cosine
from palinode.methods import Method


@dataclass(frozen=True)
class EraseDiff(Method):
    """min L_r(theta) s.t. L_f(theta) - min_phi L_f(phi) <= 0 (EraseDiff, Theorem 3.1; digest 1.1 and 1.2).

    L_r = E ||eps - eps_theta(x_t, c)||^2 on what is kept and L_f = E ||eps_f - eps_theta(a_t, c)||^2 on what is
    forgotten, each with its own t and noise. target: "noise", eps_f ~ U[0, 1)^d; "rl", the model's own prediction under
    the anchor, sg eps_theta(a_t, c_m). rule: "ratio", delta = g_r + lam g_f with lam = max(0, eta - <g_r, g_f> /
    ||g_f||^2), the paper's; "cosine", the repository's; "fixed", lam = eta. min_phi L_f(phi) is a constant to the
    gradient, so the inner loop that estimates it changes no update and is left out (a test shows it).
    """

    eta: float = 0.1
    target: Literal["noise", "rl"] = "noise"
    rule: Literal["ratio", "cosine", "fixed"] = "ratio"

    @property
    def needs_anchor(self) -> bool:
        return self.target == "rl"

    def losses(self, model, batch):
        add_noise = model.schedule.add_noise
        other_t, other_eps = batch.redraw()
        x_t, a_t = add_noise(batch.x, batch.eps, batch.t), add_noise(batch.a, other_eps, other_t)
        if self.target == "rl":
            with torch.no_grad():
                eps_f = model.predict(a_t, other_t, batch.c_m)
        else:
            eps_f = batch.uniform()
        size = len(batch.x)
        return {
            "r": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / size,
            "f": (eps_f - model.predict(a_t, other_t, batch.c_a)).square().sum() / size,
        }

    def combine(self, grads):
        if self.rule == "fixed":
            return grads["r"] + self.eta * grads["f"], {"lam": self.eta}
        rule = constrained if self.rule == "ratio" else constrained_by_cosine
        g, lam = rule(grads["r"], grads["f"], self.eta)
        return g, {"lam": lam}
