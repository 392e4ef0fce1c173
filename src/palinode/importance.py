"""Which weights matter to what: the saliency behind SalUn's mask, and the diagonal Fisher information of Selective
Amnesia. Vectors over all parameters of the network, in its order."""

from collections.abc import Iterator

import torch
from torch import Tensor

from palinode.models import Diffuser


def saliency(model: Diffuser, batches: Iterator) -> Tensor:
    """|sum over batches of grad L_eps| on the pictures to forget (SalUn; digest 6)."""
    return sum(_gradient(model, model.schedule, b.a, b.c_a, b.t, b.eps) for b in batches).abs()


def fisher(model: Diffuser, x: Tensor, c: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Mean over images x [N, ...] with conditions c of (mean over `draws` time steps of grad L_eps)^2.

    The digest's sum over all 1,000 time steps, subsampled. Sums over pixels, as in the losses.
    """
    total = torch.zeros(sum(p.numel() for p in model.net.parameters()), device=model.device)
    for i in range(len(x)):
        image, given = x[i : i + 1].expand(draws, *x.shape[1:]), c[i : i + 1].expand(draws, *c.shape[1:])
        t = torch.randint(len(model.schedule), (draws,), generator=generator).to(x.device)
        eps = torch.randn(image.shape, generator=generator).to(x.device)
        total += _gradient(model, model.schedule, image, given, t, eps).square()
    return total / len(x)


def _gradient(model: Diffuser, schedule, x: Tensor, c: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    loss = (eps - model.predict(schedule.add_noise(x, eps, t), t, c)).square().sum() / len(x)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.net.parameters()))])
