"""SISS: subtracted importance-sampled scores, one forward pass for both terms of the objective."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palinode.methods._superfactor import Superfactor


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


def _groups(in_x: Tensor, in_a: Tensor) -> list[tuple[Tensor, str]]:
    """(rows, names of the terms they take part in).

    A sample may always take part in both terms: that is right, only dearer. So a group of one term holds a multiple of
    an eighth of the batch (few shapes, for which a backend prepares its kernels once) and at least a quarter (a smaller
    one costs more in calls than it saves in passes).
    """
    unit, least = max(1, len(in_x) // 8), len(in_x) / 4
    only_x, only_a = (rows.nonzero().flatten() for rows in (in_x & ~in_a, in_a & ~in_x))
    cut_x, cut_a = (len(rows) // unit * unit if len(rows) >= least else 0 for rows in (only_x, only_a))
    both = torch.cat([(in_x & in_a).nonzero().flatten(), only_x[cut_x:], only_a[cut_a:]])
    return [(only_x[:cut_x], "x"), (only_a[:cut_a], "a"), (both, "xa")]


@dataclass(frozen=True)
class SISS(Superfactor):
    """l_{s,lam} = E[w_x ||eps_x(m) - eps_theta(m,t)||^2 - s k/(n-k) w_a ||eps_a(m) - eps_theta(m,t)||^2], m ~ q_lam.

    q_lam(m|x,a) = (1-lam) q(m|x) + lam q(m|a): m is a_t with probability lam, else x_t, never a blend. eps_s(m) =
    (m - gamma s)/sigma. On pixels the weights are one-hot unless the two sources overlap (large t), so a sample whose
    weight for one term is negligible takes part in the other term alone: one backward pass instead of two, the
    gradients unchanged to `tolerance`, the share of the batch's summed weight that may be left out of a term.
    """

    lam: float = 0.5
    tolerance: float = 1e-7

    def losses(self, model, batch):
        gamma, sigma = (v.to(batch.x)[batch.t].view(-1, 1, 1, 1) for v in (model.schedule.gamma, model.schedule.sigma))
        m = torch.where((batch.pick < self.lam).view(-1, 1, 1, 1), batch.a, batch.x) * gamma + sigma * batch.eps
        w_x, w_a = weights(log_ratio(m, batch.x, batch.a, gamma, sigma), self.lam)
        in_x, in_a = (w > self.tolerance * w.sum() / len(w) for w in (w_x, w_a))
        # Exact zeros, not tiny numbers: a CPU multiplies denormals many times slower than it multiplies zeros.
        terms = {"x": (batch.x, (w_x * in_x).to(m)), "a": (batch.a, (w_a * in_a).to(m))}
        total = {name: m.new_zeros(()) for name in terms}
        for rows, names in _groups(in_x, in_a):
            if not len(rows):
                continue
            prediction = model.predict(m[rows], batch.t[rows])
            for name in names:
                source, w = terms[name]
                eps_s = (m[rows] - gamma[rows] * source[rows]) / sigma[rows]
                error = (eps_s - prediction).square().flatten(1).sum(1)
                total[name] = total[name] + (w[rows] * error).sum() / len(m)
        return total
