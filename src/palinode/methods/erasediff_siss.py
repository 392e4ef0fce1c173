"""EraseDiff as the SISS paper's baseline: uniform-noise target on paired noise, multi-objective weight."""

from dataclasses import dataclass

from palinode.gradients import constrained
from palinode.methods import Method


@dataclass(frozen=True)
class EraseDiffSISS(Method):
    """L_{X\\A} + lam E_a ||eps_f - eps_theta(a_t, t)||^2, eps_f ~ U[0,1)^d drawn fresh (SISS digest, 1.2 and 1.4).

    x_t and a_t share eps and t pairwise. lam = max(eta - <g_x, g_a>/||g_a||^2, 0); eta 1e-3 on MNIST and CelebA-HQ,
    1e-2 on Stable Diffusion. Not the EraseDiff authors' algorithm: that is `erasediff`.
    """

    eta: float = 1e-3

    def losses(self, model, batch):
        add_noise = model.schedule.add_noise
        x_t, a_t = add_noise(batch.x, batch.eps, batch.t), add_noise(batch.a, batch.eps, batch.t)
        size = len(batch.x)
        return {
            "x": (batch.eps - model.predict(x_t, batch.t)).square().sum() / size,
            "a": (batch.uniform() - model.predict(a_t, batch.t)).square().sum() / size,
        }

    def combine(self, grads):
        g, lam = constrained(grads["x"], grads["a"], self.eta)
        return g, {"lam": lam}
