"""Paired samples of unconditional models: image i meets the same noise at every step, in every model.

Another chunk size changes the bytes by rounding only; the number of processes changes nothing.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from palinode.core.images import to_images
from palinode.core.scratch import Scratch
from palinode.models.denoiser import Denoiser
from palinode.models.schedule import leading_timesteps
from palinode.params.image_tasks import Sample
from palinode.sampling.paired import SampleKey, chunks, noise_generators
from palinode.sampling.samplers import SAMPLERS


@torch.inference_mode()
def sample_chunk(model: Denoiser, key: SampleKey, first: int, count: int, sampler: str, steps: int) -> np.ndarray:
    """Images first..first+count-1 as uint8 [count, H, W, C]."""
    generators = noise_generators(key, first, count)
    buffer = torch.empty(count, *model.shape)

    def draw() -> Tensor:
        for row, generator in zip(buffer, generators, strict=True):
            row.normal_(generator=generator)
        return buffer.to(model.device, copy=True)

    return to_images(SAMPLERS[sampler](model, draw(), leading_timesteps(len(model.schedule), steps), draw))


def sample(
    model: Denoiser,
    key: SampleKey,
    settings: Sample,
    scratch: Scratch,
    label: str,
    count: int | None = None,
    share: slice = slice(None),
) -> np.ndarray:
    """Images 0..count-1 (of settings.count where none is given), uint8 [count, H, W, C].

    Finished chunks wait in `scratch`, so that a killed run continues. share: which of the chunks are made here, for
    one of several processes.
    """
    from tqdm import tqdm

    parts = tqdm(chunks(count or settings.count, settings.chunk)[share], label, mininterval=5)
    made = [np.empty((0, *model.shape[1:], model.shape[0]), np.uint8)]  # a process may have no share
    for first, size in parts:
        make = partial(sample_chunk, model, key, first, size, settings.sampler, settings.steps)
        made.append(scratch.cached_array(f"chunk-{first}", make))
    return np.concatenate(made)
