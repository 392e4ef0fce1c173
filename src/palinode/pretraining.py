"""Training a diffusion model from scratch: the base on X, the oracle on X\\A."""

from pathlib import Path

import numpy as np
import torch

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
