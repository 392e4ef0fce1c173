"""Which weights matter to what: the saliency behind SalUn's mask, and Selective Amnesia's Fisher information.

Both are vectors over all parameters of the network, in its order.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from palinode.models.denoiser import Denoiser
from palinode.training.concept_batches import ConceptBatch


def saliency(model: Denoiser, batches: Iterator[ConceptBatch]) -> Tensor:
    """|sum over batches of grad L_eps| on the pictures to forget (SalUn, arXiv 2310.12508)."""
    gradients = [_gradient(model, batch.a, batch.c_a, batch.t, batch.eps) for batch in batches]
    return sum(gradients[1:], start=gradients[0]).abs()


def fisher(model: Denoiser, x: Tensor, c: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Mean over images x [N, ...] with conditions c of (mean over `draws` time steps of grad L_eps)^2.

    Selective Amnesia (arXiv 2305.10120) sums over all 1,000 time steps; here they are subsampled. Losses are sums over
    pixels, as everywhere in this package.
    """
    total = torch.zeros(sum(p.numel() for p in model.net.parameters()), device=model.device)
    for i in range(len(x)):
        image = x[i : i + 1].expand(draws, *x.shape[1:])
        condition = c[i : i + 1].expand(draws, *c.shape[1:])
        t = torch.randint(len(model.schedule), (draws,), generator=generator).to(x.device)
        eps = torch.randn(image.shape, generator=generator).to(x.device)
        total += _gradient(model, image, condition, t, eps).square()
    return total / len(x)


def _gradient(model: Denoiser, x: Tensor, c: Tensor | None, t: Tensor, eps: Tensor) -> Tensor:
    x_t = model.schedule.add_noise(x, eps, t)
    loss = (eps - model.predict(x_t, t, c)).square().sum() / len(x)
    gradients = torch.autograd.grad(loss, list(model.net.parameters()))
    return torch.cat([g.flatten() for g in gradients])
