"""The noise of image i, and fixed chunks that are computed one by one.

A sample's seed is hash(root seed, "sample", task, i): never the method, never the training seed. Chunks are fixed by
index, so that the bytes do not depend on the number of processes or on the order.
"""

import torch
from torch import Tensor

from palinode.core import seeds
from palinode.models.denoiser import Denoiser

SampleKey = tuple[int, str]  # root seed, and the task or the use that the samples are of


def noise_generators(key: SampleKey, first: int, count: int) -> list[torch.Generator]:
    """One generator for each of the images first..first+count-1."""
    root, task = key
    return [seeds.generator(root, "sample", task, i) for i in range(first, first + count)]


def initial_noise(model: Denoiser, key: SampleKey, first: int, count: int) -> Tensor:
    """Initial noise of images first..first+count-1, [count, C, h, w]."""
    generators = noise_generators(key, first, count)
    drawn = [torch.randn(model.shape, generator=generator) for generator in generators]
    return torch.stack(drawn).to(model.device)


def chunks(count: int, size: int) -> list[tuple[int, int]]:
    """(first index, length) of the fixed chunks that cover 0..count-1."""
    return [(first, min(size, count - first)) for first in range(0, count, size)]
