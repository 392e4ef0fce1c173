"""The digit judge: a small classifier that scores samples. It never sees an image that a method trains on."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palinode.core import seeds
from palinode.core.images import to_model
from palinode.core.scratch import Checkpoint

WIDTH = 64
TURN = 10  # degrees either way
SHEAR = 0.1  # also of the scale
SHIFT = 2  # in units of half a picture's pixel: one pixel either way


class Judge(nn.Module):
    """Four convolutions and two linear layers. Input [B, C, H, W] in [-1, 1], H and W divisible by 4."""

    def __init__(self, size: int, channels: int, classes: int):
        super().__init__()
        self.config: dict[str, Any] = {"size": size, "channels": channels, "classes": classes}
        shapes = [(channels, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)]
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
            for into, out, stride in shapes
        )
        self.hidden = nn.Linear(64 * (size // 4) ** 2, WIDTH)
        self.out = nn.Linear(WIDTH, classes)

    def layers(self, x: Tensor) -> list[Tensor]:
        """The activations after each convolution, [B, 32 or 64, h, w]."""
        activations = []
        for convolution in self.convolutions:
            x = convolution(x)
            activations.append(x)
        return activations

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer, [B, 64]."""
        return self.hidden(self.layers(x)[-1].flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        """Class logits, [B, classes]."""
        return self.out(self.features(x))


def vary(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of [B, C, H, W] turned, scaled, sheared and shifted at random; what comes in repeats the edge.

    By up to ten degrees, a tenth, a tenth, and a pixel.
    """
    turn, scale, shear, down, right = (torch.rand(5, len(x), generator=generator) * 2 - 1).unbind()
    angle = turn * math.radians(TURN)
    scale = 1 + SHEAR * scale
    cos = angle.cos() * scale
    sin = angle.sin() * scale
    first_row = torch.stack([cos, SHEAR * shear - sin, right * SHIFT / x.shape[3]], 1)
    second_row = torch.stack([sin, cos, down * SHIFT / x.shape[2]], 1)
    theta = torch.stack([first_row, second_row], 1)
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def train(
    images: np.ndarray,
    labels: np.ndarray,
    key: tuple[str | int, ...],
    epochs: int = 40,
    batch: int = 64,
    checkpoint: Checkpoint | None = None,
) -> Judge:
    """Train on uint8 images [N, H, W, C], varied anew in each epoch; Adam 2e-3, cosine.

    checkpoint: takes the state after every epoch, and gives the one to continue from.
    """
    from tqdm import tqdm

    checkpoint = checkpoint or Checkpoint()
    generator = seeds.generator(*key)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*key, "init"))
        judge = Judge(images.shape[1], images.shape[3], int(labels.max()) + 1)
    x = to_model(np.array(images))
    y = torch.as_tensor(np.array(labels)).long()
    batches = len(x) // batch
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    parts: tuple[Any, ...] = (judge, optimizer, schedule)
    first = 0
    if saved := checkpoint.load():
        first = saved["epochs"]
        generator.set_state(saved["generator"])
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    for epoch in tqdm(range(first, epochs), "judge", initial=first, total=epochs, mininterval=5):
        for rows in torch.randperm(len(x), generator=generator).split(batch)[:batches]:
            loss = nn.functional.cross_entropy(judge(vary(x[rows], generator)), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        states = [part.state_dict() for part in parts]
        checkpoint.save({"epochs": epoch + 1, "generator": generator.get_state(), "parts": states})
    return judge.eval()


@torch.inference_mode()
def accuracy(judge: Judge, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of uint8 images [N, H, W, C] classified as labelled."""
    predicted = judge(to_model(np.array(images))).argmax(1).numpy()
    return float((predicted == labels).mean())
