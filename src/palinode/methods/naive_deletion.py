"""Naive deletion: keep training on the retain set alone."""

from dataclasses import dataclass

from palinode.methods import Method


@dataclass(frozen=True)
class NaiveDeletion(Method):
    """L_{X\\A} = E_{x in X\\A} E_{t,eps} ||eps - eps_theta(x_t, t)||^2 (SISS paper, section 1.2 of the digest)."""

    def losses(self, model, batch):
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        return {"x": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / len(batch.x)}

    def combine(self, grads):
        return grads["x"], {}
