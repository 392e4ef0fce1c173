"""SISS: subtracted importance-sampled scores, one forward pass for both terms of the objective."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import BatchLike, Source
from palinode.methods._mixture import group_rows, log_ratio, weights
from palinode.methods._superfactor import Superfactor
from palinode.models.denoiser import Denoiser


@dataclass
class SISS(Superfactor):
    """l_{s,lam} = E[w_x ||eps_x(m) - eps_theta(m,t)||^2 - s k/(n-k) w_a ||eps_a(m) - eps_theta(m,t)||^2], m ~ q_lam.

    q_lam(m|x,a) = (1-lam) q(m|x) + lam q(m|a): m is a_t with probability lam, else x_t, never a blend. eps_s(m) =
    (m - gamma s)/sigma. On pixels the weights are one-hot unless the two sources overlap (large t), so a sample whose
    weight for one term is negligible takes part in the other term alone: one backward pass instead of two, the
    gradients unchanged to `tolerance`, the share of the batch's summed weight that may be left out of a term.

    refresh: s is measured every so many steps. In between it stays, and one backward pass of the combined loss serves
    both terms: the price of a plain training step.
    """

    source = Source(
        paper="Alberti et al.: Data Unlearning in Diffusion Models (SISS)",
        arxiv="2503.01034",
        venue="ICLR 2025",
        equation="the loss l_{s,lam} of Lemma 1 with s, in its kept-set form; superfactor of Appendix A.3",
        repository="claserken/SISS at af2a29c (importance_sampling_with_mixture)",
        compared=(
            "Both losses agree to 3e-6 and both gradients to 4e-6 of their size, at lam 0, 0.5 and 1.",
            "Five whole steps of its MNIST script move the weights by the same, to 5e-5 of the way.",
        ),
        deviations=(
            "The forget gradient is held at a constant norm, as in the code that made the paper's numbers.",
            "The paper's text has a share of the naive term's gradient norm instead; see `ratio`.",
            "Our `ratio` is a share of the norm of SISS's own retain term, whose weights vanish at lam 1.",
            "Importance weights are computed in log space and float64, which cannot overflow.",
            "A sample with a negligible weight for one term is left out of that term (option `tolerance`).",
            "Time steps are uniform; the official CelebA-HQ and Stable Diffusion scripts draw 999 only.",
            "Options `refresh` above 1 are ours.",
        ),
    )
    needs = frozenset({"unconditional"})

    lam: Annotated[float, Field(ge=0, le=1)] = 0.5
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-7
    refresh: Annotated[int, Field(ge=1)] = 1

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        self._step = 0
        self._superfactor = 0.0

    def losses(self, model: Denoiser, batch: BatchLike) -> dict[str, Tensor]:
        gamma = model.schedule.gamma.to(batch.x)[batch.t].view(-1, 1, 1, 1)
        sigma = model.schedule.sigma.to(batch.x)[batch.t].view(-1, 1, 1, 1)
        m = torch.where((batch.u < self.lam).view(-1, 1, 1, 1), batch.a, batch.x) * gamma + sigma * batch.eps
        w_x, w_a = weights(log_ratio(m, batch.x, batch.a, gamma, sigma), self.lam)
        in_x = w_x > self.tolerance * w_x.sum() / len(w_x)
        in_a = w_a > self.tolerance * w_a.sum() / len(w_a)
        # Exact zeros, not tiny numbers: a CPU multiplies denormals many times slower than it multiplies zeros.
        terms = {"retain": (batch.x, (w_x * in_x).to(m)), "forget": (batch.a, (w_a * in_a).to(m))}
        total = {name: m.new_zeros(()) for name in terms}
        measured = self._step % self.refresh == 0
        everything = [(torch.arange(len(m), device=m.device), tuple(terms))]
        for rows, names in group_rows(in_x, in_a) if measured else everything:
            if not len(rows):
                continue
            prediction = model.predict(m[rows], batch.t[rows])
            for name in names:
                images, w = terms[name]
                residual = (m[rows] - gamma[rows] * images[rows]) / sigma[rows] - prediction
                total[name] = total[name] + (w[rows] * self.error(name, residual, batch.t[rows], batch.total)).sum()
        total = {name: value / len(m) for name, value in total.items()}
        return total if measured else {"combined": total["retain"] - self._superfactor * total["forget"]}

    def error(self, name: str, residual: Tensor, t: Tensor, total: int) -> Tensor:
        """The error of each sample in the term `name`, [B]; residual [B, C, H, W]; t int64 [B] in 0..total-1."""
        return residual.square().flatten(1).sum(1)

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        if "combined" in grads:
            return grads["combined"], {"superfactor": self._superfactor}
        g, logged = super().combine(grads)
        self._superfactor = logged["superfactor"]
        return g, logged

    def after_step(self) -> None:
        self._step += 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "superfactor": self._superfactor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._step = state["step"]
        self._superfactor = state["superfactor"]
