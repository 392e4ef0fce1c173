"""Training an unconditional base on X, or its oracle on X without the repeated images, by one recipe."""

from pathlib import Path

import numpy as np
import torch

from palinode import methods
from palinode.core import seeds
from palinode.core.io import read_array, read_json, write_absence, write_csv
from palinode.core.scratch import Scratch
from palinode.core.work import Work
from palinode.models import files, unconditional
from palinode.models.denoiser import Denoiser
from palinode.params.stage_settings import PretrainImages
from palinode.training.batches import ImageBatches
from palinode.training.loop import train


def run(work: Work) -> None:
    """Write model/ (fp16, the averaged weights) and training/denoiser.csv.

    Initial weights, time steps and noise are those of the same seeds for base and oracle; only the images differ.
    """
    settings = work.settings(PretrainImages)
    model_folder, log_folder = work.outputs
    if settings.source is not None:
        files.name_source(model_folder, settings.source, settings.scheduler)
        write_absence(log_folder, f"{settings.name} is {settings.source}, which is not trained here")
        return
    assert settings.model is not None and settings.scheduler is not None
    key = (settings.root_seed, settings.name, "pretrain")
    channels = {"in_channels": settings.channels, "out_channels": settings.channels}
    config = settings.model | {"sample_size": settings.size} | channels
    model = unconditional.create(config, settings.scheduler, seeds.derive(*key, "init"))
    model.net.to(work.device)
    with work.scratch() as scratch:
        history = _train(model, settings, work.inputs[1], key, scratch, work.name)
        unconditional.save(model, model_folder, torch.float16)
        write_csv(log_folder / "denoiser.csv", history)


def continue_training(
    settings: PretrainImages, start: Path, data: Path, folder: Path, scratch: Scratch, device: torch.device
) -> None:
    """Train the model in the folder `start` on the prepared images in `data`, and write it to `folder` (fp16).

    For a base with a `start`: one that memorizes other images than the base that it starts from.
    """
    model = unconditional.load(start, device)
    key = (settings.root_seed, settings.name, "base")
    _train(model, settings, data, key, scratch, settings.name)
    unconditional.save(model, folder, torch.float16)


def _train(
    model: Denoiser, settings: PretrainImages, data: Path, key: tuple, scratch: Scratch, label: str
) -> list[dict]:
    """Train in place on the prepared images."""
    training = settings.pretrain
    assert training is not None
    model.precision = training.precision
    images = _read_images(data)
    # The second set is drawn and never used: pretraining has no forget term.
    total = len(model.schedule)
    batches = ImageBatches(images, images[:1], total, training.batch, training.accumulate, model.device, key)
    return train(model, methods.load("naive_deletion"), batches, training, scratch, label)


def _read_images(data: Path) -> np.ndarray:
    images = read_array(data / "train.npy")
    if not (data / "repeated.npy").exists():
        return images
    copies = read_json(data / "metadata.json")["copies"]
    return np.concatenate([images, *[read_array(data / "repeated.npy")] * copies])
