"""Combining retain and forget gradients. Every gradient is one flat vector over all trained parameters."""

import torch
from torch import Tensor


def hold_ratio(g_x: Tensor, g_a: Tensor, ratio: float) -> tuple[Tensor, float]:
    """g_x - s g_a with s chosen so that ||s g_a|| = ratio * ||g_x|| (SISS paper, section on the superfactor, App. A.3).

    Returns the update direction (ascent on the forget term) and s. A forget gradient that underflowed to zero, or whose
    factor is not finite, contributes nothing and gives s = 0: this is what lambda = 0 does at small t.
    """
    return _scaled_difference(g_x, g_a, ratio * g_x.norm())


def hold_norm(g_x: Tensor, g_a: Tensor, norm: float) -> tuple[Tensor, float]:
    """g_x - s g_a with s chosen so that ||s g_a|| = norm: the official SISS code's `scaling_norm`."""
    return _scaled_difference(g_x, g_a, torch.tensor(float(norm)))


def _scaled_difference(g_x: Tensor, g_a: Tensor, target: Tensor) -> tuple[Tensor, float]:
    factor = float(target / g_a.norm())
    if not torch.isfinite(torch.tensor(factor)):
        return g_x, 0.0
    return g_x - factor * g_a, factor


def constrained(g_r: Tensor, g_f: Tensor, eta: float) -> tuple[Tensor, float]:
    """argmin_d ||g_r - d||^2 s.t. <g_f, d> >= eta ||g_f||^2 (EraseDiff, Theorem 3.1).

    d = g_r + lam g_f, lam = max(0, eta - <g_r, g_f> / ||g_f||^2). Returns d and lam; a zero g_f leaves g_r.
    """
    square = g_f @ g_f
    if square == 0:
        return g_r, 0.0
    lam = max(0.0, eta - float(g_r @ g_f / square))
    return g_r + lam * g_f, lam
