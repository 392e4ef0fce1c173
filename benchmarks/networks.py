"""The networks and pictures that are measured; weights are random, since the time does not depend on them.

networks.py BASE FOLDER [SIZE]  writes the network of an unconditional base as a diffusers folder
"""

import sys
from pathlib import Path

import numpy as np
import torch
from common import REPOSITORY
from torch import Tensor
from torch.nn.functional import interpolate

from palinode import params
from palinode.core import images, seeds
from palinode.models import unconditional
from palinode.models.denoiser import Diffuser
from palinode.params import Params
from palinode.params.bases import DDPM_SCHEDULER

DIGITS_28 = {
    "sample_size": 28,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"] * 2,
    "up_block_types": ["UpBlock2D"] * 2,
    "norm_num_groups": 8,
}
CELEBAHQ = {  # config.json of google/ddpm-celebahq-256, 113.67 M parameters
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "layers_per_block": 2,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}


def setup() -> Params:
    """Threads and determinism as the stages set them; returns the parameters."""
    chosen = params.load(REPOSITORY / "params.yaml")
    torch.set_num_threads(chosen.threads.cells)
    torch.use_deterministic_algorithms(True)
    return chosen


def config_of(chosen: Params, name: str) -> dict:
    """The network of an unconditional base that the pipeline trains."""
    base = chosen.unconditional(name)
    assert base.model is not None, name
    data = base.data
    return base.model | {"sample_size": data.size, "in_channels": data.channels, "out_channels": data.channels}


def create(config: dict) -> Diffuser:
    """The network with random weights and the papers' schedule."""
    return unconditional.create(config, DDPM_SCHEDULER, seed=1)


def draw_pictures(size: int, channels: int, count: int) -> tuple[Tensor, Tensor]:
    """Retain images [count, C, H, W] and one forget image [1, C, H, W], in [-1, 1].

    Digits and the T-shirt in grey; in colour smooth random fields, whose pixels vary as much as those of faces.
    """
    if channels == 1:
        digits = images.to_model(np.load(REPOSITORY / "data/mnist/train.npy")[:count])
        tshirt = images.to_model(np.load(REPOSITORY / "data/fashion/tshirt.npy"))
        return _resize(digits, size), _resize(tshirt, size)
    generator = seeds.generator("bench", "fields")
    total = torch.zeros(count + 1, channels, size, size)
    for cells, amplitude in ((2, 0.5), (8, 0.3), (32, 0.1)):
        field = amplitude * torch.randn(count + 1, channels, cells, cells, generator=generator)
        total += interpolate(field, size=(size, size), mode="bicubic")
    total = total.clamp(-1, 1)
    return total[1:], total[:1]


def _resize(x: Tensor, size: int) -> Tensor:
    return interpolate(x, size=(size, size), mode="bilinear")


def main(base: str, folder: str, size: str = "256") -> None:
    config = config_of(setup(), base) if base == "tshirt" else CELEBAHQ | {"sample_size": int(size)}
    unconditional.save(create(config), Path(folder))
    if base == "tshirt":
        return
    from PIL import Image

    faces = Path(folder).with_name("faces")
    faces.mkdir()
    retain, _ = draw_pictures(int(size), 3, 8)
    for i, picture in enumerate(images.to_images(retain)):
        Image.fromarray(picture).save(faces / f"{i:05}.jpg")


if __name__ == "__main__":
    main(*sys.argv[1:])
