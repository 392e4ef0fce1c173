"""Training a diffusion model from scratch: the base on X, the oracle on X\\A."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import methods, models, seeds
from palinode.contact import sheet, write_png
from palinode.io import write_array, write_csv
from palinode.scratch import Scratch
from palinode.training import Batches, train


def pretrain(images: np.ndarray, settings, scratch: Scratch, folder: Path, device, label: str) -> None:
    """Train on uint8 images [N, H, W, C] and save the averaged weights as fp16.

    Initial weights, time steps and noise are those of the same seeds for base and oracle; only the images differ.
    """
    training = settings.pretrain
    key = (settings.root_seed, settings.task, "pretrain")
    channels = settings.channels
    config = settings.model | {"sample_size": settings.size, "in_channels": channels, "out_channels": channels}
    model = models.create(config, settings.scheduler, seeds.derive(*key, "init"))
    model.net.to(device)
    model.precision = training.precision
    # The second set is drawn and never used: pretraining has no forget term.
    batches = Batches(images, images[:1], len(model.schedule), training.batch, training.accumulate, device, key)
    train(model, methods.load("naive_deletion"), batches, training, scratch, label)
    models.save(model, folder, torch.float16)


@dataclass
class ConditionalBatch:
    """x, t, eps as in training.Batch; given: what each image shows, as `states` of the model takes it."""

    x: Tensor
    t: Tensor
    eps: Tensor
    given: Tensor


class OneLoss(methods.Method):
    """Plain descent on the loss named x."""

    def combine(self, grads):
        return grads["x"], {}


@dataclass(frozen=True)
class Denoise(OneLoss):
    """E w(t) ||eps - eps_theta(x_t, t, c)||^2 of a conditional model; weights: w(t), [T], 1 where there are none."""

    model: models.Diffuser
    weights: Tensor | None = None

    def losses(self, _, batch: ConditionalBatch):
        x_t = self.model.schedule.add_noise(batch.x, batch.eps, batch.t)
        eps = self.model.predict(x_t, batch.t, self.model.states(batch.given))
        errors = (eps - batch.eps).square().flatten(1).sum(1)
        return {"x": (errors if self.weights is None else self.weights[batch.t] * errors).mean()}


class Watch:
    """Draws with the unfinished model whenever the training loop says so; `drawn`: uint8 [times, n, H, W, C]."""

    def __init__(self, model: models.Diffuser, preview: Callable[[models.Diffuser], np.ndarray], scratch: Scratch):
        self.model, self.preview, self.scratch = model, preview, scratch

    def __call__(self, step: int) -> None:
        write_array(self.scratch.folder / f"drawn-{step:08d}.npy", self.preview(self.model))

    @property
    def drawn(self) -> np.ndarray:
        return np.stack([np.load(path) for path in sorted(self.scratch.folder.glob("drawn-*.npy"))])


@dataclass
class Outcome:
    """A trained conditional model, what `train` logged of each phase, and what a `Watch` drew on the way."""

    model: models.Diffuser
    history: dict[str, list[dict]]
    drawn: np.ndarray

    def write_progress(self, folder: Path) -> None:
        """<phase>.csv with the losses, and epochs.png: a row of pictures for every twentieth of the training."""
        for phase, history in self.history.items():
            write_csv(folder / f"{phase}.csv", history)
        rows, columns, *shape = self.drawn.shape
        write_png(folder / "epochs.png", sheet(self.drawn.reshape(rows * columns, *shape), columns))
