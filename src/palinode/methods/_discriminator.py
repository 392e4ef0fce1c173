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


class Adversary:
    """A discriminator and its optimiser: 1 stands for the target's domain, 0 for the anchor's.

    leak: a generator's step leaves its gradient in the discriminator's (DoCo's public code), else it is frozen there.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], rate: float, leak: bool, seed: int, device):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = Discriminator(channels, widths).to(device)
        self.adam, self.leak = torch.optim.Adam(self.net.parameters(), rate, betas=(0.5, 0.999)), leak

    def objects(self, shown: Tensor) -> Tensor:
        """The generator's loss: binary cross-entropy of what it shows with the anchor's label."""
        self.net.requires_grad_(self.leak)
        return wants(self.net(shown), 0.0)

    def learn(self, anchor: Tensor, target: Tensor) -> None:
        """One step of its own."""
        if not self.leak:
            self.adam.zero_grad()
        self.net.requires_grad_(True)
        (wants(self.net(anchor), 0.0) + wants(self.net(target), 1.0)).backward()
        self.adam.step()
        self.adam.zero_grad()

    def state_dict(self) -> dict:
        return {"net": self.net.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.adam.load_state_dict(state["adam"])


def wants(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy of patch logits against one label for all."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
