"""DoCo: the target's predictions moved into the anchor's domain by a discriminator, without harm to the anchor."""

from dataclasses import dataclass
from typing import Literal

import torch

from palinode.gradients import project, project_as_published
from palinode.methods import Method
from palinode.methods._discriminator import Adversary


@dataclass
class DoCo(Method):
    """u = BCE(D(s), anchor), r = mean ||eps' - eps_theta(m_t', c_m)||^2, after each step D by BCE(D(a), anchor) +
    BCE(D(s), target), with a = eps_0(m_t, c_m) and s = eps_theta(m_t, c_a), each as the image it implies (digest 1.3).

    m: pictures that the original model draws of the anchor. The first `warmup` steps train D alone. on: what D sees,
    the implied x_0 (current code) or the noise prediction (first code). retain: "none"; "sum", g_u + weight g_r;
    "project", g_u without its component along a conflicting g_r, tensor by tensor; "project-all", in one piece;
    "published", what the public code does instead (`gradients.project_as_published`). leak: leave the generator's
    gradient in D's, as the public code does. D and its optimiser belong to the state of a run.
    """

    warmup: int = 100
    rate: float = 1e-4
    weight: float = 0.1
    widths: tuple[int, ...] = (16, 32, 64)
    on: Literal["x0", "eps"] = "x0"
    retain: Literal["none", "sum", "project", "project-all", "published"] = "project"
    leak: bool = False
    needs_anchor = True

    def begin(self, model, helpers):
        self._adversary = Adversary(model.shape[0], self.widths, self.rate, self.leak, helpers["seed"], model.device)
        self._original, self._sizes, self._step = model.frozen(), [p.numel() for p in model.trainable()], 0

    def losses(self, model, batch):
        m_t = model.schedule.add_noise(batch.m, batch.eps, batch.t)
        other_t, other_eps = batch.redraw()
        again = model.schedule.add_noise(batch.m, other_eps, other_t)
        with torch.no_grad():
            self._real = self._shown(model, m_t, batch.t, self._original.predict(m_t, batch.t, batch.c_m))
        fake = self._shown(model, m_t, batch.t, model.predict(m_t, batch.t, batch.c_a))
        self._fake = fake.detach()
        found = {"u": self._adversary.objects(fake)}
        if self.retain != "none":
            found["r"] = (other_eps - model.predict(again, other_t, batch.c_m)).square().mean()
        return found

    def _shown(self, model, x_t, t, eps):
        return eps if self.on == "eps" else model.schedule.implied(x_t, eps, t)

    def combine(self, grads):
        if self._step < self.warmup:
            return None, {}
        if self.retain == "none":
            return grads["u"], {}
        if self.retain == "sum":
            return grads["u"] + self.weight * grads["r"], {}
        rule = project_as_published if self.retain == "published" else project
        sizes = [sum(self._sizes)] if self.retain == "project-all" else self._sizes
        g, conflicting = rule(grads["u"], grads["r"], sizes)
        return g, {"conflicting": conflicting}

    def after_step(self):
        self._adversary.learn(self._real, self._fake)
        self._step += 1

    def state_dict(self):
        return {"adversary": self._adversary.state_dict(), "step": self._step}

    def load_state_dict(self, state):
        self._adversary.load_state_dict(state["adversary"])
        self._step = state["step"]
