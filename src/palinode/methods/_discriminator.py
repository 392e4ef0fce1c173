"""A patch discriminator of noise predictions or of the images they imply, with its own optimiser.

Patches as in pix2pix (Isola et al., CVPR 2017, arXiv 1611.07004); the generator's loss is the non-saturating one of
Goodfellow et al. (NeurIPS 2014, arXiv 1406.2661).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palinode.core.errors import UserError

Norm = Literal["group", "batch"]


class Discriminator(nn.Module):
    """Strided convolutions, logits of patches; the first and the last layer are not normalised.

    norm: "group", with a last layer that keeps the size; "batch", with one of kernel 4 that takes a row and a column
    off, as DoCo's public code has it.
    """

    def __init__(self, channels: int, widths: Sequence[int], norm: Norm = "group"):
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for i, width in enumerate(widths):
            layers.append(nn.Conv2d(before, width, 4, 2, 1))
            if i:
                layers.append(nn.GroupNorm(8, width) if norm == "group" else nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3 if norm == "group" else 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Adversary:
    """A discriminator and its optimiser: 1 stands for the target's domain, 0 for the anchor's.

    leak: a generator's step leaves its gradient in the discriminator's (DoCo's public code), else it is frozen there.
    """

    def __init__(self, net: Discriminator, rate: float, leak: bool):
        self.net = net
        self.adam = torch.optim.Adam(self.net.parameters(), rate, betas=(0.5, 0.999))
        self.leak = leak
        self.told: dict[str, float] = {}  # share of patches told right before the last step, by quarter of t

    def generator_loss(self, shown: Tensor) -> Tensor:
        """The generator's loss: binary cross-entropy of what it shows with the anchor's label."""
        self.net.requires_grad_(self.leak)
        return bce_to(self.net(shown), 0.0)

    def step(self, anchor: Tensor, target: Tensor, t: Tensor, total: int) -> None:
        """One step of the discriminator's own; t: time steps [B] of 0..total-1."""
        if not self.leak:
            self.adam.zero_grad()
        self.net.requires_grad_(True)
        of_anchor = self.net(anchor)
        of_target = self.net(target)
        (bce_to(of_anchor, 0.0) + bce_to(of_target, 1.0)).backward()
        self.adam.step()
        self.adam.zero_grad()
        right = ((of_anchor < 0).float() + (of_target > 0).float()).flatten(1).mean(1) / 2
        self.told = share_by_quarter(right, t, total)

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "adam": self.adam.state_dict(), "told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.adam.load_state_dict(state["adam"])
        self.told = state["told"]


def share_by_quarter(right: Tensor, t: Tensor, total: int) -> dict[str, float]:
    """Means of right [B] over the quarters of 0..total-1 that t [B] falls in, by name; no quarter without a sample."""
    quarters = t * 4 // total
    present = sorted(set(quarters.tolist()))
    return {f"discriminator_{quarter + 1}": float(right[quarters == quarter].mean()) for quarter in present}


def create(
    shape: tuple[int, int, int], widths: Sequence[int], norm: Norm, seed: int, device: str | torch.device
) -> Discriminator:
    """A fresh discriminator of pictures [C, H, W]; its weights depend on the seed alone.

    UserError where so many layers leave no patch of a picture.
    """
    channels, *sides = shape
    lost = 0 if norm == "group" else 1
    if min(sides) // 2 ** len(widths) - lost < 1:
        raise UserError(f"widths: {len(widths)} layers leave no patch of {sides[0]} x {sides[1]} with norm {norm!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(channels, widths, norm).to(device)


def bce_to(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy of patch logits against one label for all."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
