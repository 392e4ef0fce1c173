"""Combining retain and forget gradients. Every gradient is one flat vector over all trained parameters.

A name that ends in `_` overwrites its first argument, as in torch: on large networks every copy counts.
"""

import torch
from torch import Tensor


def hold_ratio_(g_x: Tensor, g_a: Tensor, ratio: float) -> tuple[Tensor, float]:
    """g_x - s g_a with s chosen so that ||s g_a|| = ratio * ||g_x|| (SISS paper, section on the superfactor, App. A.3).

    Returns the update direction (ascent on the forget term) and s. A forget gradient that underflowed to zero, or whose
    factor is not finite, contributes nothing and gives s = 0: this is what lambda = 0 does at small t.
    """
    return _subtract_scaled_(g_x, g_a, ratio * g_x.norm())


def hold_norm_(g_x: Tensor, g_a: Tensor, norm: float) -> tuple[Tensor, float]:
    """g_x - s g_a with s chosen so that ||s g_a|| = norm: the official SISS code's `scaling_norm`."""
    return _subtract_scaled_(g_x, g_a, torch.tensor(float(norm)))


def _subtract_scaled_(g_x: Tensor, g_a: Tensor, target: Tensor) -> tuple[Tensor, float]:
    factor = float(target / g_a.norm())
    if not torch.isfinite(torch.tensor(factor)):
        return g_x, 0.0
    return g_x.sub_(g_a, alpha=factor), factor


def constrained(g_r: Tensor, g_f: Tensor, eta: float) -> tuple[Tensor, float]:
    """argmin_d ||g_r - d||^2 s.t. <g_f, d> >= eta ||g_f||^2 (EraseDiff, Theorem 3.1).

    d = g_r + lam g_f, lam = max(0, eta - <g_r, g_f> / ||g_f||^2). Returns d and lam; a zero g_f leaves g_r.
    """
    square = g_f @ g_f
    if square == 0:
        return g_r, 0.0
    lam = max(0.0, eta - float(g_r @ g_f / square))
    return g_r + lam * g_f, lam


def constrained_by_cosine(g_r: Tensor, g_f: Tensor, eta: float) -> tuple[Tensor, float]:
    """g_r + lam g_f with lam = max(0, eta - cos(g_r, g_f)): what EraseDiff's repository has instead of `constrained`.

    Returns the direction and lam; a zero g_f leaves g_r.
    """
    lam = max(0.0, eta - float(cosine(g_r, g_f))) if g_f.any() else 0.0
    return g_r + lam * g_f, lam


def cosine(g: Tensor, h: Tensor) -> Tensor:
    """cos of the angle between two gradients; 0 when one of them is zero."""
    return (g @ h) / (g.norm() * h.norm()).clamp_min(torch.finfo(g.dtype).tiny)


def nash(g_r: Tensor, g_f: Tensor, margin: float = 1e-4) -> tuple[Tensor, float, float]:
    """The Nash bargaining solution a_r g_r + a_f g_f with (G^T G) a = 1 / a (MUNBa).

    For two gradients a_i = 1 / (||g_i|| sqrt(1 + cos)), scale-free. Returns the direction, a_r and a_f. Gradients that
    point against each other to within `margin` of cos = -1, or vanish, have no such point: then g_r + g_f / 2, as the
    authors' code falls back to.
    """
    norms, cos = (g_r.norm(), g_f.norm()), cosine(g_r, g_f)
    if cos < margin - 1 or min(norms) == 0:
        return g_r + 0.5 * g_f, 1.0, 0.5
    a_r, a_f = (float(1 / (norm * (1 + cos).sqrt())) for norm in norms)
    return a_r * g_r + a_f * g_f, a_r, a_f


def project(g_u: Tensor, g_r: Tensor, sizes: list[int], strength: float = 1.0) -> tuple[Tensor, float]:
    """g_u without its component along a conflicting g_r (one-sided PCGrad; DoCo's first public code).

    sizes: lengths of the pieces that are treated each by itself, parameter tensors or one piece for all. In a piece
    with <g_u, g_r> < 0: g_u - strength <g_u, g_r> / ||g_r||^2 g_r, orthogonal to g_r at strength 1; other pieces stay
    as they are. Returns the gradient and the share of conflicting pieces.
    """
    pieces, conflicts = [], 0
    for u, r in zip(g_u.split(sizes), g_r.split(sizes), strict=True):
        inner = u @ r
        conflicts += bool(inner < 0)
        pieces.append(u - strength * inner / (r @ r) * r if inner < 0 else u)
    return torch.cat(pieces), conflicts / len(sizes)


def project_as_published(g_u: Tensor, g_r: Tensor, sizes: list[int], strength: float = 1.0) -> tuple[Tensor, float]:
    """What DoCo's current public code does in the place of `project`: not a projection (digest 1.5).

    Both gradients are clipped to global norm 1; in a conflicting piece g_u - strength cos(g_u, g_r) g_r / ||g_r||. The
    factor ||g_u|| is missing, so that a short g_u is pushed past orthogonality, towards g_r.
    """
    g_u, g_r = (g / g.norm().clamp_min(1.0) for g in (g_u, g_r))
    pieces, conflicts = [], 0
    for u, r in zip(g_u.split(sizes), g_r.split(sizes), strict=True):
        cos = cosine(u, r)
        conflicts += bool(cos < 0)
        pieces.append(u - strength * cos * r / r.norm() if cos < 0 else u)
    return torch.cat(pieces), conflicts / len(sizes)
