"""A patch discriminator of noise predictions or of the images they imply, with its own optimiser."""

import torch
from torch import Tensor, nn


class Discriminator(nn.Module):
    """Strided convolutions with group normalisation, logits of patches; the first layer is not normalised."""

    def __init__(self, channels: int, widths: tuple[int, ...]):
        super().__init__()
        layers, before = [], channels
        for i, width in enumerate(widths):
            layers.append(nn.Conv2d(before, width, 4, 2, 1))
            layers += ([nn.GroupNorm(8, width)] if i else []) + [nn.LeakyReLU(0.2)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def wants(logits: Tensor, target: bool) -> Tensor:
    """Binary cross-entropy of patch logits against one label for all: 1 for the target's domain, 0 for the anchor's."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(target)))
