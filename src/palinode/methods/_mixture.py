"""SISS's importance weights of a sample of the mixture of two noised pictures, and which terms it matters to.

Alberti et al.: Data Unlearning in Diffusion Models (SISS), ICLR 2025, arXiv 2503.01034.
"""

import torch
from torch import Tensor


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


def group_rows(in_x: Tensor, in_a: Tensor) -> list[tuple[Tensor, tuple[str, ...]]]:
    """(rows, names of the losses they take part in); in_x, in_a: bool [B], whether a sample matters to each term.

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
