"""Paired sampling from prompts or classes: image i starts from the same noise in every model.

DDIM with guidance, as `StableDiffusionPipeline` does it: time steps are evenly spaced and offset by the scheduler's
`steps_offset`.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.core.images import to_images
from palinode.core.scratch import Scratch
from palinode.models.denoiser import Denoiser
from palinode.models.guidance import Guided
from palinode.models.schedule import leading_timesteps
from palinode.sampling.paired import SampleKey, chunks, initial_noise
from palinode.sampling.samplers import ddim


def timesteps(config: dict, steps: int) -> list[int]:
    """`steps` time steps, descending ("leading" spacing); UserError for too many. config: scheduler_config.json."""
    total = config["num_train_timesteps"]
    offset = config.get("steps_offset", 0)
    if steps + offset > total:
        raise UserError(f"sampler: steps must lie in 1..{total - offset}, not {steps}")
    return [t + offset for t in leading_timesteps(total, steps)]


@torch.inference_mode()
def draw(
    model: Denoiser,
    prompts: list,
    key: SampleKey,
    scale: float,
    steps: int,
    scratch: Scratch | None = None,
    chunk: int = 64,
) -> np.ndarray:
    """One image a prompt, uint8 [N, H, W, C]; each prompt is encoded once.

    scale: of the guidance; scratch: where finished chunks wait, so that a killed run continues.
    """
    from tqdm import tqdm

    guide = _guidance(model, prompts, scale)
    times = timesteps(model.config, steps)
    plan = chunks(len(prompts), chunk)

    def make(first: int, count: int) -> np.ndarray:
        guided = guide(prompts[first : first + count])
        ends = ddim(guided, initial_noise(model, key, first, count), times)
        return to_images(model.decode(ends))

    parts = tqdm(plan, "samples", mininterval=5, disable=len(plan) == 1)
    if scratch is None:
        return np.concatenate([make(*part) for part in parts])
    return np.concatenate([scratch.cached_array(f"chunk-{part[0]}", partial(make, *part)) for part in parts])


@torch.no_grad()
def trace(
    model: Denoiser, prompts: list, key: SampleKey, scale: float, steps: int, chunk: int = 64
) -> tuple[Tensor, Tensor, Tensor]:
    """Sampling trajectories, in the model's own space: (ends [N, ...], states [N, S, ...], times [S]).

    Noise and steps are those of `draw`. states[:, s] is what the model was shown at time step times[s].
    """
    guide = _guidance(model, prompts, scale)
    times = timesteps(model.config, steps)
    ends = []
    states = []
    for first, count in chunks(len(prompts), chunk):
        visited: list[Tensor] = []
        guided = guide(prompts[first : first + count], visited)
        ends.append(ddim(guided, initial_noise(model, key, first, count), times).cpu())
        states.append(torch.stack(visited, 1).cpu())
    return torch.cat(ends), torch.cat(states), torch.tensor(times)


def _guidance(model: Denoiser, prompts: list, scale: float) -> Callable[..., Guided]:
    """prompts -> the model guided by them; all of `prompts` are encoded once, here."""
    unique = list(dict.fromkeys(prompts))
    conditions = dict(zip(unique, model.condition(unique), strict=True))
    null = model.condition([model.null_prompt])

    def guide(chosen: list, visited: list[Tensor] | None = None) -> Guided:
        return Guided(model, torch.stack([conditions[prompt] for prompt in chosen]), null, scale, visited)

    return guide
