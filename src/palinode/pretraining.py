"""Training a diffusion model from scratch: the base on X, the oracle on X\\A."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import methods, models, seeds
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
    """E ||eps - eps_theta(x_t, t, c)||^2 of a conditional model."""

    model: models.Diffuser

    def losses(self, _, batch: ConditionalBatch):
        x_t = self.model.schedule.add_noise(batch.x, batch.eps, batch.t)
        eps = self.model.predict(x_t, batch.t, self.model.states(batch.given))
        return {"x": (eps - batch.eps).square().flatten(1).sum(1).mean()}
