"""EraseDiff: the retain loss under a constraint on the forget loss, one quadratic program a step."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import ConceptBatchLike, Method, Source
from palinode.methods._gradients import constrain, constrain_by_cosine
from palinode.models.denoiser import Denoiser


@dataclass
class EraseDiff(Method):
    """min L_r(theta) s.t. L_f(theta) - min_phi L_f(phi) <= 0.

    L_r = E ||eps - eps_theta(x_t, c)||^2 on what is kept and L_f = E ||eps_f - eps_theta(a_t, c)||^2 on what is
    forgotten, each with its own t and noise. target: "noise", eps_f ~ U[0, 1)^d; "rl", the model's own prediction under
    the anchor, sg eps_theta(a_t, c_anchor). rule: "ratio", delta = g_retain + lam g_forget with lam = max(0, eta -
    <g_retain, g_forget> / ||g_forget||^2), the paper's; "cosine", the repository's; "fixed", lam = eta.
    """

    source = Source(
        paper="Wu et al.: Erasing Undesirable Influence in Diffusion Models (EraseDiff)",
        arxiv="2401.05779",
        venue="CVPR 2025",
        equation="Theorem 3.1, the closed form of the step's quadratic program with the bound eta ||grad L_f||^2",
        repository="JingWu321/EraseDiff at 14f4e98",
        deviations=(
            "The inner loop for min_phi L_f(phi) is left out: it is a constant to the gradient, as a test shows.",
            "In the repository that loop acts through the optimiser's moments, which are not restored.",
            "The repository has a cosine in the place of the ratio, by default a fixed weight (option `rule`).",
            "Forget images have their own time steps; the repository's target `rl` takes the retain images'.",
            "The target `noise` corrupts with Gaussian noise; an earlier form of the code with the uniform target.",
            "The target `rl` takes the task's anchor; the repository another class at random, or a pokemon.",
        ),
    )

    eta: Annotated[float, Field(ge=0)] = 0.1
    target: Literal["noise", "rl"] = "noise"
    rule: Literal["ratio", "cosine", "fixed"] = "ratio"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"anchor"} if self.target == "rl" else ())

    def losses(self, model: Denoiser, batch: ConceptBatchLike) -> dict[str, Tensor]:
        other_t, other_eps = batch.redraw()
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, other_eps, other_t)
        if self.target == "rl":
            with torch.no_grad():
                eps_f = model.predict(a_t, other_t, batch.c_anchor)
        else:
            eps_f = batch.uniform()
        size = len(batch.x)
        return {
            "retain": (batch.eps - model.predict(x_t, batch.t, batch.c_x)).square().sum() / size,
            "forget": (eps_f - model.predict(a_t, other_t, batch.c_a)).square().sum() / size,
        }

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        if self.rule == "fixed":
            return grads["retain"] + self.eta * grads["forget"], {"lam": self.eta}
        rule = constrain if self.rule == "ratio" else constrain_by_cosine
        g, lam = rule(grads["retain"], grads["forget"], self.eta)
        return g, {"lam": lam}
