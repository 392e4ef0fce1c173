"""Selective Amnesia: a surrogate in the target's place, and weights that stay where they matter to the rest."""

from dataclasses import dataclass

from palinode.methods import Method


@dataclass
class SelectiveAmnesia(Method):
    """E_{m} L_eps(m, c_a) + gamma E_x L_eps(x, c_x) + lam sum_i F_i (theta_i - theta0_i)^2 (digest 6).

    m: pictures of the anchor under the target's caption, the surrogate; F: the diagonal Fisher information of the
    original model on what is kept, computed once a task.
    """

    gamma: float = 1.0
    lam: float = 10.0
    needs_anchor = needs_fisher = True

    def begin(self, model, helpers):
        self._fisher = model.trained(helpers["fisher"])
        self._start = model.weights().detach().clone()

    def losses(self, model, batch):
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        m_t = model.schedule.add_noise(batch.m, other_eps, other_t)
        return {
            "r": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(x_t),
            "f": (other_eps - model.predict(m_t, other_t, batch.c_a)).square().sum() / len(m_t),
            "w": (self._fisher * (model.weights() - self._start).square()).sum(),
        }

    def combine(self, grads):
        return grads["f"] + self.gamma * grads["r"] + self.lam * grads["w"], {}
