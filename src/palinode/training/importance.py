"""Which weights matter to what: the saliency behind SalUn's mask, and Selective Amnesia's Fisher information.

Both are vectors over all parameters of the network, in its order. Losses are sums over pixels, as everywhere here.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from palinode.models.denoiser import Denoiser
from palinode.models.guidance import Guided
from palinode.training.concept_batches import ConceptBatch


def saliency(model: Denoiser, batches: Iterator[ConceptBatch], guidance: float, clip: float | None) -> Tensor:
    """|sum over batches of grad ||eps - (e_0 + guidance (e_c - e_0))||^2| on the pictures to forget.

    SalUn (arXiv 2310.12508), as in its code: the gradient flows through both predictions. clip: the norm to which each
    batch's gradient is clipped, as in the official code for pixels; None: none.
    """
    total = torch.zeros(_size(model), device=model.device)
    for batch in batches:
        assert batch.c_a is not None
        guided = Guided(model, batch.c_a, batch.c_null, guidance)
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        gradient = _gradient(model, (batch.eps - guided.predict(a_t, batch.t)).square().sum() / len(a_t))
        scale = 1.0 if clip is None else min(1.0, clip / (float(gradient.norm()) + 1e-6))
        total += scale * gradient
    return total.abs()


def fisher(model: Denoiser, x: Tensor, c: Tensor, steps: int | None, generator: torch.Generator, chunk: int) -> Tensor:
    """Mean over images x [N, ...] with conditions c of (sum over all time steps of grad L_eps)^2.

    Selective Amnesia's diagonal Fisher information (arXiv 2305.10120), as its code has it: one noise a time step, and
    the square is taken of the sum. steps: how many evenly spaced time steps stand for all T of them, the sum scaled to
    T; None: all. Fewer cost less, and give too much: noise does not average out. chunk: time steps at a time.
    """
    total = len(model.schedule)
    times = torch.arange(total) if steps is None else torch.linspace(0, total - 1, steps).round().long()
    information = torch.zeros(_size(model), device=model.device)
    for image, condition in zip(x, c, strict=True):
        summed = torch.zeros_like(information)
        for part in times.split(chunk):
            t = part.to(image.device)
            repeated = image.expand(len(t), *image.shape)
            eps = torch.randn(repeated.shape, generator=generator).to(image)
            x_t = model.schedule.add_noise(repeated, eps, t)
            predicted = model.predict(x_t, t, condition.expand(len(t), *condition.shape))
            summed += _gradient(model, (eps - predicted).square().sum())
        information += (summed * total / len(times)).square()
    return information / len(x)


def _size(model: Denoiser) -> int:
    return sum(p.numel() for p in model.net.parameters())


def _gradient(model: Denoiser, loss: Tensor) -> Tensor:
    gradients = torch.autograd.grad(loss, list(model.net.parameters()))
    return torch.cat([g.flatten() for g in gradients])
