"""SISS: subtracted importance-sampled scores, one forward pass for both terms of the objective."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import BatchLike, Source
from palinode.methods._superfactor import Superfactor
from palinode.models.denoiser import Denoiser


def log_ratio(m: Tensor, x: Tensor, a: Tensor, gamma: Tensor, sigma: Tensor) -> Tensor:
    """D_x - D_a = log q(m|a) - log q(m|x), with D_s = ||m - gamma s||^2 / (2 sigma^2).

    m, x, a [B, ...]; gamma, sigma broadcastable to [B, ...]; float64 [B]: at small t the two terms are huge and
    nearly equal.
    """
    m, x, a, gamma, sigma = (v.double() for v in (m, x, a, gamma, sigma))
    difference = ((m - gamma * x) ** 2 - (m - gamma * a) ** 2) / (2 * sigma**2)
    return difference.flatten(1).sum(1)


def weights(log_r: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """w_x = 1 / ((1-lam) + lam e^r) and w_a = 1 / ((1-lam) e^-r + lam), r = D_x - D_a, through sigmoids (log space).

    0 <= w_x <= 1/(1-lam), 0 <= w_a <= 1/lam and (1-lam) w_x + lam w_a = 1; finite for every lam in [0, 1] and finite r.
    """
    if lam == 0:
        return torch.ones_like(log_r), log_r.exp()
    if lam == 1:
        return (-log_r).exp(), torch.ones_like(log_r)
    shift = torch.logit(torch.tensor(lam, dtype=log_r.dtype))
    return torch.sigmoid(-log_r - shift) / (1 - lam), torch.sigmoid(log_r + shift) / lam


def _group_rows(in_x: Tensor, in_a: Tensor) -> list[tuple[Tensor, tuple[str, ...]]]:
    """(rows, names of the losses they take part in).

    A sample may always take part in both terms: that is right, only dearer. So a group of one term holds a multiple of
    an eighth of the batch (few shapes, for which a backend prepares its kernels once) and at least a quarter (a smaller
    one costs more in calls than it saves in passes).
    """
    unit = max(1, len(in_x) // 8)
    least = len(in_x) / 4

    def count(rows: Tensor) -> int:
        return len(rows) // unit * unit if len(rows) >= least else 0

    only_x = (in_x & ~in_a).nonzero().flatten()
    only_a = (in_a & ~in_x).nonzero().flatten()
    cut_x = count(only_x)
    cut_a = count(only_a)
    both = torch.cat([(in_x & in_a).nonzero().flatten(), only_x[cut_x:], only_a[cut_a:]])
    return [(only_x[:cut_x], ("retain",)), (only_a[:cut_a], ("forget",)), (both, ("retain", "forget"))]


@dataclass
class SISS(Superfactor):
    """l_{s,lam} = E[w_x ||eps_x(m) - eps_theta(m,t)||^2 - s k/(n-k) w_a ||eps_a(m) - eps_theta(m,t)||^2], m ~ q_lam.

    q_lam(m|x,a) = (1-lam) q(m|x) + lam q(m|a): m is a_t with probability lam, else x_t, never a blend. eps_s(m) =
    (m - gamma s)/sigma. On pixels the weights are one-hot unless the two sources overlap (large t), so a sample whose
    weight for one term is negligible takes part in the other term alone: one backward pass instead of two, the
    gradients unchanged to `tolerance`, the share of the batch's summed weight that may be left out of a term.
    """

    source = Source(
        paper="Alberti et al.: Data Unlearning in Diffusion Models (SISS)",
        arxiv="2503.01034",
        venue="ICLR 2025",
        equation="the loss l_{s,lam} of Lemma 1 with s, in its kept-set form; superfactor of Appendix A.3",
        repository="claserken/SISS at af2a29c (importance_sampling_with_mixture)",
        deviations=(
            "The forget gradient is held at a share of the retain gradient's norm, as the paper says.",
            "The code holds it at a constant norm instead (option `norm`).",
            "Importance weights are computed in log space and float64; the code's exponentials are NaN at lam 0.",
            "A sample with a negligible weight for one term is left out of that term (option `tolerance`).",
            "Time steps are uniform; the official CelebA-HQ and Stable Diffusion scripts draw 999 only.",
        ),
    )
    needs = frozenset({"unconditional"})

    lam: Annotated[float, Field(ge=0, le=1)] = 0.5
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-7

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
        for rows, names in _group_rows(in_x, in_a):
            if not len(rows):
                continue
            prediction = model.predict(m[rows], batch.t[rows])
            for name in names:
                images, w = terms[name]
                eps_s = (m[rows] - gamma[rows] * images[rows]) / sigma[rows]
                error = (eps_s - prediction).square().flatten(1).sum(1)
                total[name] = total[name] + (w[rows] * error).sum() / len(m)
        return total
