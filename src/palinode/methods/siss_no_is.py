"""SISS without importance sampling: the two terms of the objective, each with its own forward pass."""

from dataclasses import dataclass

from palinode.methods._superfactor import Superfactor


@dataclass(frozen=True)
class SISSNoIS(Superfactor):
    """L_{X\\A} - s k/(n-k) L_A with two forward passes, sharing eps and t pairwise (SISS paper, "No IS").

    The kept-set form: x is drawn from X\\A, so the coefficient of the x term is 1.
    """

    def losses(self, model, batch):
        add_noise = model.schedule.add_noise
        x_t, a_t = add_noise(batch.x, batch.eps, batch.t), add_noise(batch.a, batch.eps, batch.t)
        size = len(batch.x)
        return {
            "x": (batch.eps - model.predict(x_t, batch.t)).square().sum() / size,
            "a": (batch.eps - model.predict(a_t, batch.t)).square().sum() / size,
        }
