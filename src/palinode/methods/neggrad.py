"""NegGrad: gradient ascent on the forget set alone."""

from dataclasses import dataclass

from palinode.methods import Method


@dataclass(frozen=True)
class NegGrad(Method):
    """Minimise -superfactor * L_A, L_A = E_{a in A} E_{t,eps} ||eps - eps_theta(a_t, t)||^2 (SISS paper's baseline).

    With the global gradient clip always active and AdamW, a constant superfactor hardly changes the path; the official
    MNIST value is 0.01.
    """

    superfactor: float = 0.01

    def losses(self, model, batch):
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        return {"a": (batch.eps - model.predict(a_t, batch.t, batch.c_a)).square().sum() / len(batch.a)}

    def combine(self, grads):
        return -self.superfactor * grads["a"], {}
