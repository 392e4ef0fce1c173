"""Samples of which only those matter that come near some images: the others are given up on the way.

What is kept has the noise of plain sampling, image by image, so that the same images come out up to rounding.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from palinode.core.images import to_images
from palinode.models.denoiser import Denoiser
from palinode.models.schedule import leading_timesteps
from palinode.sampling.paired import SampleKey, noise_generators
from palinode.sampling.samplers import ddpm, ddpm_step


@torch.inference_mode()
def sample_near(
    model: Denoiser, key: SampleKey, first: int, count: int, steps: int, look: int, near: Callable[[Tensor], Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Of images first..first+count-1 those that are near after `look` of `steps` DDPM steps, finished.

    near: of predicted x_0 [N, C, H, W], which go on, bool [N]. Returns (images uint8 [M, H, W, C], int64 [M], their
    numbers).
    """
    generators = noise_generators(key, first, count)
    timesteps = leading_timesteps(len(model.schedule), steps)

    def draw_for(rows: list[int]) -> Callable[[], Tensor]:
        def draw() -> Tensor:
            return torch.stack([torch.randn(model.shape, generator=generators[row]) for row in rows]).to(model.device)

        return draw

    everyone = list(range(count))
    draw = draw_for(everyone)
    x = draw()
    for t, previous in itertools.pairwise(timesteps[: look + 1]):
        x = ddpm_step(model, x, t, previous, draw)
    t = timesteps[look]
    times = torch.full((count,), t, device=model.device)
    chosen = near(model.schedule.predict_x0(x, model.predict(x, times), times))
    rows = torch.nonzero(chosen).flatten().tolist()
    if not rows:
        return np.empty((0, *model.shape[1:], model.shape[0]), np.uint8), np.empty(0, np.int64)
    finished = ddpm(model, x[chosen], timesteps[look:], draw_for(rows))
    return to_images(finished), first + np.array(rows)
