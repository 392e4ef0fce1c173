"""Combining retain and forget gradients. Every gradient is one flat vector over all trained parameters.

A name that ends in `_` overwrites its first argument, as in torch: on large networks every copy counts.
"""

import torch
from torch import Tensor


def hold_ratio_(g_retain: Tensor, g_forget: Tensor, ratio: float) -> tuple[Tensor, float]:
    """g_retain - s g_forget with s chosen so that ||s g_forget|| = ratio * ||g_retain||.

    The superfactor of SISS (Alberti et al., ICLR 2025, arXiv 2503.01034); its Appendix A.3 says why a ratio below 1 is
    safe. Returns the update direction, ascent on the forget term, and s. A forget gradient that is nothing beside
    g_retain, to the precision of its numbers, contributes nothing and gives s = 0: this is what lambda = 0 does at
    small t.
    """
    return _subtract_scaled_(g_retain, g_forget, ratio * g_retain.norm())


def hold_norm_(g_retain: Tensor, g_forget: Tensor, norm: float) -> tuple[Tensor, float]:
    """g_retain - s g_forget with s chosen so that ||s g_forget|| = norm.

    What the SISS authors' code does instead (claserken/SISS at af2a29c, `scaling_norm`). It finds g_forget by a
    subtraction of float32 sums, so that one far below g_retain's precision is 0 there, as here.
    """
    return _subtract_scaled_(g_retain, g_forget, torch.tensor(float(norm)))


def _subtract_scaled_(g_retain: Tensor, g_forget: Tensor, norm: Tensor) -> tuple[Tensor, float]:
    forget_norm = g_forget.norm()
    if forget_norm <= torch.finfo(g_forget.dtype).eps * g_retain.norm():
        return g_retain, 0.0
    factor = float(norm / forget_norm)
    return g_retain.sub_(g_forget, alpha=factor), factor


def constrain(g_retain: Tensor, g_forget: Tensor, eta: float) -> tuple[Tensor, float]:
    """argmin_d ||g_retain - d||^2 subject to <g_forget, d> >= eta ||g_forget||^2.

    EraseDiff's update (Wu et al., CVPR 2025, arXiv 2401.05779), Theorem 3.1: d = g_retain + lam g_forget with
    lam = max(0, eta - <g_retain, g_forget> / ||g_forget||^2). Returns d and lam; a zero g_forget leaves g_retain.
    """
    square = g_forget @ g_forget
    if square == 0:
        return g_retain, 0.0
    lam = max(0.0, eta - float(g_retain @ g_forget / square))
    return g_retain + lam * g_forget, lam


def constrain_by_cosine(g_retain: Tensor, g_forget: Tensor, eta: float) -> tuple[Tensor, float]:
    """g_retain + lam g_forget with lam = max(0, eta - cos(g_retain, g_forget)).

    What the EraseDiff authors' code has in the place of `constrain` (JingWu321/EraseDiff at 14f4e98). Returns the
    direction and lam; a zero g_forget leaves g_retain.
    """
    lam = max(0.0, eta - float(cosine(g_retain, g_forget))) if g_forget.any() else 0.0
    return g_retain + lam * g_forget, lam


def cosine(g: Tensor, h: Tensor) -> Tensor:
    """cos of the angle between two gradients; 0 when either of them is zero."""
    return (g @ h) / (g.norm() * h.norm()).clamp_min(torch.finfo(g.dtype).tiny)


def bargain(g_retain: Tensor, g_forget: Tensor, margin: float = 1e-4) -> tuple[Tensor, float, float]:
    """The Nash bargaining solution a_retain g_retain + a_forget g_forget, where (G^T G) a = 1 / a.

    MUNBa (Wu and Harandi, ICCV 2025, arXiv 2411.15537), from Nash-MTL (Navon et al., ICML 2022, arXiv 2202.01017). For
    two gradients a_i = 1 / (||g_i|| sqrt(1 + cos)), which no scale of a loss changes. Returns the direction, a_retain
    and a_forget. Gradients that point against each other to within `margin` of cos = -1, or vanish, have no such point:
    then g_retain + g_forget / 2, as the authors' code falls back to (JingWu321/MUNBa at 7038772).
    """
    norm_retain = g_retain.norm()
    norm_forget = g_forget.norm()
    cos = cosine(g_retain, g_forget)
    if cos < margin - 1 or min(norm_retain, norm_forget) == 0:
        return g_retain + 0.5 * g_forget, 1.0, 0.5
    a_retain = float(1 / (norm_retain * (1 + cos).sqrt()))
    a_forget = float(1 / (norm_forget * (1 + cos).sqrt()))
    return a_retain * g_retain + a_forget * g_forget, a_retain, a_forget


def project(g: Tensor, g_kept: Tensor, sizes: list[int], strength: float = 1.0) -> tuple[Tensor, float]:
    """g without its component along a conflicting g_kept.

    The projection of PCGrad (Yu et al., NeurIPS 2020, arXiv 2001.06782, Algorithm 1), of one gradient only, as in
    DoCo's first public code (yongliang-wu/DoCo at 9214ec4). sizes: lengths of the pieces that are treated each by
    itself, parameter tensors or one piece for all. In a piece with <g, g_kept> < 0: g - strength <g, g_kept> /
    ||g_kept||^2 g_kept, orthogonal to g_kept at strength 1; other pieces stay as they are. Returns the gradient and the
    share of conflicting pieces.
    """
    pieces = []
    conflicts = 0
    for piece, kept in zip(g.split(sizes), g_kept.split(sizes), strict=True):
        inner = piece @ kept
        if inner < 0:
            conflicts += 1
            pieces.append(piece - strength * inner / (kept @ kept) * kept)
        else:
            pieces.append(piece)
    return torch.cat(pieces), conflicts / len(sizes)


def project_as_published(g: Tensor, g_kept: Tensor, sizes: list[int], strength: float = 1.0) -> tuple[Tensor, float]:
    """What DoCo's current public code does in the place of `project` (yongliang-wu/DoCo at ebf6ff4): no projection.

    Both gradients are clipped to global norm 1; in a conflicting piece g - strength cos(g, g_kept) g_kept / ||g_kept||,
    each norm enlarged by 1e-8. The factor ||g|| is missing, so that a short g is pushed past orthogonality, towards
    g_kept.
    """
    clipped = g / g.norm().clamp_min(1.0)
    clipped_kept = g_kept / g_kept.norm().clamp_min(1.0)
    pieces = []
    conflicts = 0
    for piece, kept in zip(clipped.split(sizes), clipped_kept.split(sizes), strict=True):
        direction = kept / (kept.norm() + 1e-8)
        cos = piece / (piece.norm() + 1e-8) @ direction
        if cos < 0:
            conflicts += 1
            pieces.append(piece - strength * cos * direction)
        else:
            pieces.append(piece)
    return torch.cat(pieces), conflicts / len(sizes)
