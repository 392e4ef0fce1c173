"""The networks and pictures that are measured; weights are random, since the time does not depend on them.

networks.py TASK FOLDER [SIZE]  writes the base model of a task as a diffusers folder
"""

import sys
from pathlib import Path

import numpy as np
import torch
from common import REPOSITORY
from torch.nn.functional import interpolate

from palinode import params
from palinode.core import images, seeds
from palinode.models import denoiser, unconditional

DIGITS_28 = {
    "sample_size": 28, "in_channels": 1, "out_channels": 1, "block_out_channels": [32, 64], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "norm_num_groups": 8,
}  # fmt: skip
CELEBAHQ = {  # config.json of google/ddpm-celebahq-256, 113.67 M parameters
    "sample_size": 256, "in_channels": 3, "out_channels": 3, "block_out_channels": [128, 128, 256, 256, 512, 512],
    "layers_per_block": 2, "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False,
    "freq_shift": 1, "norm_eps": 1e-6,
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}  # fmt: skip


def setup() -> params.Params:
    """Threads and determinism as the stages set them; returns the parameters."""
    chosen = params.load(REPOSITORY / "params.yaml")
    torch.set_num_threads(chosen.runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return chosen


def of_task(chosen: params.Params, name: str) -> dict:
    """The network that a task of params.yaml trains."""
    task = chosen.tasks[name]
    size, channels = task.data.size, task.data.channels
    return task.model | {"sample_size": size, "in_channels": channels, "out_channels": channels}


def create(config: dict) -> denoiser.Diffuser:
    """The network with random weights and the papers' schedule."""
    return unconditional.create(config, params.Task.model_fields["scheduler"].default, seed=1)


def pictures(size: int, channels: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Retain images [count, C, H, W] and one forget image [1, C, H, W], in [-1, 1]: digits and the T-shirt in grey,
    smooth random fields in colour, whose pixels vary as much as those of faces."""
    if channels == 1:
        files = (REPOSITORY / "data/mnist/train.npy", REPOSITORY / "data/fashion/tshirt.npy")
        retain, forget = (images.to_model(np.load(file)[:count]) for file in files)
        return tuple(interpolate(images, size=(size, size), mode="bilinear") for images in (retain, forget))
    generator, total = seeds.generator("bench", "fields"), torch.zeros(count + 1, channels, size, size)
    for cells, amplitude in ((2, 0.5), (8, 0.3), (32, 0.1)):
        field = amplitude * torch.randn(count + 1, channels, cells, cells, generator=generator)
        total += interpolate(field, size=(size, size), mode="bicubic")
    return total.clamp(-1, 1)[1:], total.clamp(-1, 1)[:1]


def main(task: str, folder: str, size: str = "256") -> None:
    config = of_task(setup(), task) if task == "tshirt" else CELEBAHQ | {"sample_size": int(size)}
    unconditional.save(create(config), Path(folder))
    if task == "tshirt":
        return
    from PIL import Image

    faces = Path(folder).with_name("faces")
    faces.mkdir()
    for i, picture in enumerate(images.to_images(pictures(int(size), 3, 8)[0])):
        Image.fromarray(picture).save(faces / f"{i:05}.jpg")


if __name__ == "__main__":
    main(*sys.argv[1:])
