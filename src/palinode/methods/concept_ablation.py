"""Concept Ablation: on pictures of the anchor, predict for the target what is predicted for the anchor."""

from dataclasses import dataclass

import torch

from palinode.methods import Method


@dataclass(frozen=True)
class ConceptAblation(Method):
    """||sg eps_theta(m_t, c_m) - eps_theta(m_t, c_a)||^2 + w ||eps' - eps_theta(m_t', c_m)||^2 (digest, DoCo 6).

    m: pictures that the original model draws of the anchor; c_m their captions, c_a the same with the target's name.
    The teacher is the current model. w: of the anchor's own denoising loss, with a t and noise of its own. DoCo without
    its discriminator.
    """

    w: float = 0.0
    needs_anchor = True

    def losses(self, model, batch):
        m_t = model.schedule.add_noise(batch.m, batch.eps, batch.t)
        with torch.no_grad():
            anchor = model.predict(m_t, batch.t, batch.c_m)
        found = {"f": (anchor - model.predict(m_t, batch.t, batch.c_a)).square().sum() / len(m_t)}
        if self.w:
            other_t, other_eps = batch.redraw()
            again = model.schedule.add_noise(batch.m, other_eps, other_t)
            found["r"] = (other_eps - model.predict(again, other_t, batch.c_m)).square().sum() / len(m_t)
        return found

    def combine(self, grads):
        return grads["f"] + self.w * grads["r"] if self.w else grads["f"], {}
