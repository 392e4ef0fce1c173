"""EraseDiff, the paper's constrained form with the noise target."""

from dataclasses import dataclass

from palinode.gradients import constrained
from palinode.methods import Method


@dataclass(frozen=True)
class EraseDiff(Method):
    """min L_r(theta) s.t. L_f(theta) - min_phi L_f(phi) <= 0, solved by one QP per step (EraseDiff, Theorem 3.1).

    L_r = E ||eps - eps_theta(x_t)||^2 on X\\A and L_f = E ||eps_f - eps_theta(a_t)||^2 on A, each with its own t and
    noise, eps_f ~ U[0,1)^d (the "noise" target, digest 1.1). delta = g_r + lam g_f with
    lam = max(0, eta - <g_r, g_f>/||g_f||^2), eta 0.1 as in the authors' repository. min_phi L_f(phi) is a constant to
    the gradient, so the inner loop that estimates it changes no update and is left out.
    """

    eta: float = 0.1

    def losses(self, model, batch):
        add_noise = model.schedule.add_noise
        other_t, other_eps = batch.redraw()
        x_t, a_t = add_noise(batch.x, batch.eps, batch.t), add_noise(batch.a, other_eps, other_t)
        size = len(batch.x)
        return {
            "r": (batch.eps - model.predict(x_t, batch.t)).square().sum() / size,
            "f": (batch.uniform() - model.predict(a_t, other_t)).square().sum() / size,
        }

    def combine(self, grads):
        g, lam = constrained(grads["r"], grads["f"], self.eta)
        return g, {"lam": lam}
