"""The judge: a small digit classifier that scores samples. It never sees an image that a method trains on."""

import inspect
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from palinode import seeds
from palinode.errors import UserError
from palinode.io import atomic, read_json, write_json
from palinode.models import to_model
from palinode.scratch import Checkpoint

WIDTH = 64


class Judge(nn.Module):
    """Four convolutions and two linear layers. Input [B, C, H, W] in [-1, 1], H and W divisible by 4."""

    def __init__(self, size: int, channels: int, classes: int):
        super().__init__()
        self.config = {"size": size, "channels": channels, "classes": classes}
        shapes = [(channels, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)]
        self.convolutions = nn.ModuleList([
            nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
            for into, out, stride in shapes
        ])  # fmt: skip
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
    """Each image of [B, C, H, W] turned by up to ten degrees, scaled and sheared by up to a tenth, and shifted by up to
    a pixel; what comes in repeats the edge."""
    turn, scale, shear, down, right = (torch.rand(5, len(x), generator=generator) * 2 - 1).unbind()
    angle, scale = turn * math.radians(10), 1 + 0.1 * scale
    cos, sin = angle.cos() * scale, angle.sin() * scale
    across = torch.stack([cos, 0.1 * shear - sin, right * 2 / x.shape[3]], 1)
    theta = torch.stack([across, torch.stack([sin, cos, down * 2 / x.shape[2]], 1)], 1)
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def train(
    images: np.ndarray,
    labels: np.ndarray,
    key: tuple,
    epochs: int = 40,
    batch: int = 64,
    checkpoint: Checkpoint | None = None,
) -> Judge:
    """Train on uint8 images [N, H, W, C], varied anew in each epoch; Adam 2e-3, cosine.

    checkpoint: takes the state after every epoch, and gives the one to continue from.
    """
    from tqdm import tqdm

    generator = seeds.generator(*key)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*key, "init"))
        judge = Judge(images.shape[1], images.shape[3], int(labels.max()) + 1)
    x, y = to_model(np.array(images)), torch.as_tensor(np.array(labels)).long()
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parts, checkpoint, first = (judge, optimizer, schedule), checkpoint or Checkpoint(), 0
    if saved := checkpoint.load():
        first = saved["epochs"]
        generator.set_state(saved["generator"])
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    for epoch in tqdm(range(first, epochs), "judge", initial=first, total=epochs, mininterval=5):
        for rows in torch.randperm(len(x), generator=generator).split(batch)[: len(x) // batch]:
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


def save(judge: nn.Module, folder: Path, facts: dict) -> None:
    """Write judge.safetensors (fp32) and config.json: `judge.config`, the arguments of its class, and facts."""
    from safetensors.torch import save_file

    with atomic(folder) as temporary:
        temporary.mkdir()
        save_file(judge.state_dict(), temporary / "judge.safetensors")
        write_json(temporary / "config.json", judge.config | facts)


def load(folder: Path, kind: type[nn.Module] = Judge) -> nn.Module:
    """Load what `save` wrote of a judge of this kind; UserError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(Path(folder) / "config.json")
    with torch.device("meta"):  # initial weights would be drawn from the global generator
        judge = kind(**{name: config[name] for name in inspect.signature(kind).parameters})
    try:
        judge.load_state_dict(load_file(Path(folder) / "judge.safetensors"), assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"cannot read the judge in {folder}: {str(error).splitlines()[0]}") from None
    return judge.eval()
