"""DoCo: the target's predictions moved into the anchor's domain by a discriminator, without harm to the anchor."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method, Source, _discriminator
from palinode.methods._discriminator import Adversary, Norm
from palinode.methods._gradients import project, project_as_published
from palinode.models.denoiser import Denoiser
from palinode.models.text_to_image import first_token_detached

Width = Annotated[int, Field(ge=8, multiple_of=8)]  # eight groups of channels are normalised


@dataclass
class DoCo(Method):
    """adversary = BCE(D(s), anchor), anchor = mean ||eps' - eps_theta(m_t', c_anchor)||^2, D by BCE(D(a), anchor) +
    BCE(D(s), target) after each step, with a = eps_0(m_t, c_anchor) and s = eps_theta(m_t, c_a).

    m: pictures that the original model draws of the anchor. The first `warmup` steps train D alone. on: what D sees of
    a and s, the implied x_0 (current code) or the noise prediction (first code). retain: "none"; "sum", g_adversary +
    weight g_anchor; "project", g_adversary without its component along a conflicting g_anchor, tensor by tensor;
    "project-all", in one piece; "published", what the public code does instead (`_gradients.project_as_published`).
    leak: leave the generator's gradient in D's. norm: of D, "batch" in the public code. bos_detach: nothing is learnt
    from the keys and values of the first token. D and its optimiser belong to a run's state.
    """

    source = Source(
        paper="Wu et al.: Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept "
        "Preserving Gradient (DoCo)",
        arxiv="2405.15304",
        venue="AAAI 2025",
        equation="domain correction and concept-preserving gradient; the paper's own equations were not at hand",
        repository="yongliang-wu/DoCo at ebf6ff4, and its first code at 9214ec4",
        compared=(
            "The surgery agrees to 1e-7, that of its first code too.",
            "With `norm: batch`, the discriminator's logits, gradients and weights after a leaky step are the same.",
            "Keys and values detached at the first token give the same outputs and gradients.",
            "Four whole steps agree to 2e-7 in the discriminator's gradient and 2e-8 in the weights, in float64.",
        ),
        deviations=(
            "The conflicting component is projected away exactly, as in the first code.",
            "The present code's rule pushes past orthogonality (option `retain: published`).",
            "It also leaks the generator's gradient into the discriminator (`leak`) and detaches the first token.",
            "The discriminator has group normalisation and small widths; the public one batch normalisation (`norm`).",
            "The anchor's denoising loss is on the same pictures; the public code draws other ones.",
            "The public code's warm-up counts from 0, so that it is a step longer than its number.",
        ),
    )

    warmup: Annotated[int, Field(ge=0)] = 100
    rate: Annotated[float, Field(gt=0)] = 1e-4
    weight: Annotated[float, Field(ge=0)] = 0.1
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (16, 32, 64)
    norm: Norm = "group"
    on: Literal["x0", "eps"] = "x0"
    retain: Literal["none", "sum", "project", "project-all", "published"] = "project"
    leak: bool = False
    bos_detach: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"anchor", "text"} if self.bos_detach else {"anchor"})

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        net = _discriminator.create(model.shape, self.widths, self.norm, statistics["seed"], model.device)
        self._adversary = Adversary(net, self.rate, self.leak)
        self._original = model.frozen()
        self._sizes = [p.numel() for p in model.trainable()]
        self._total = len(model.schedule)
        self._step = 0

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        m_t = model.schedule.add_noise(batch.anchor, batch.eps, batch.t)
        warming = self._step < self.warmup
        with torch.no_grad():
            original = self._original.predict(m_t, batch.t, batch.c_anchor)
            self._anchor = self._show(model, m_t, batch.t, original)
        with first_token_detached(model.net, self.bos_detach), torch.set_grad_enabled(not warming):
            target = self._show(model, m_t, batch.t, model.predict(m_t, batch.t, batch.c_a))
        self._target = target.detach()
        self._t = batch.t
        if warming:
            return {}
        losses = {"adversary": self._adversary.generator_loss(target)}
        if self.retain != "none":
            other_t, other_eps = batch.redraw()
            again = model.schedule.add_noise(batch.anchor, other_eps, other_t)
            with first_token_detached(model.net, self.bos_detach):
                losses["anchor"] = (other_eps - model.predict(again, other_t, batch.c_anchor)).square().mean()
        return losses

    def _show(self, model: Denoiser, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the discriminator sees of a noise prediction."""
        return eps if self.on == "eps" else model.schedule.predict_x0(x_t, eps, t)

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, float]]:
        if not grads:
            return None, self._adversary.told
        if self.retain == "none":
            return grads["adversary"], self._adversary.told
        if self.retain == "sum":
            return grads["adversary"] + self.weight * grads["anchor"], self._adversary.told
        rule = project_as_published if self.retain == "published" else project
        sizes = [sum(self._sizes)] if self.retain == "project-all" else self._sizes
        g, conflicting = rule(grads["adversary"], grads["anchor"], sizes)
        return g, {"conflicting": conflicting, **self._adversary.told}

    def after_step(self) -> None:
        self._adversary.step(self._anchor, self._target, self._t, self._total)
        self._step += 1

    def state_dict(self) -> dict[str, Any]:
        return {"adversary": self._adversary.state_dict(), "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adversary.load_state_dict(state["adversary"])
        self._step = state["step"]
