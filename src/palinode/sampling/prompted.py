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
from palinode.sampling.samplers import ddim, ddim_step


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
def trajectory_states(
    model: Denoiser, condition: Tensor, null: Tensor, scale: float, times: list[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """States on fresh DDIM trajectories, each stopped before a step drawn at random: (x_t [B, C, H, W], t int64 [B]).

    condition: [B, ...]; null: the null prompt's, [1, ...]; scale: of the guidance; times: the sampler's time steps.
    """
    size = len(condition)
    x = torch.randn((size, *model.shape), generator=generator).to(condition.device)
    stops = torch.randint(len(times), (size,), generator=generator)
    for step in range(int(stops.max())):
        going = (stops > step).nonzero().flatten().to(x.device)
        guided = Guided(model, condition[going], null, scale)
        x[going] = ddim_step(guided, x[going], times[step], times[step + 1])
    return x, torch.tensor(times)[stops].to(x.device)


def _guidance(model: Denoiser, prompts: list, scale: float) -> Callable[[list], Guided]:
    """prompts -> the model guided by them; all of `prompts` are encoded once, here."""
    unique = list(dict.fromkeys(prompts))
    conditions = dict(zip(unique, model.condition(unique), strict=True))
    null = model.condition([model.null_prompt])

    def guide(chosen: list) -> Guided:
        return Guided(model, torch.stack([conditions[prompt] for prompt in chosen]), null, scale)

    return guide
