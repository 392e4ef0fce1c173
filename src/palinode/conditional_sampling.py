"""Paired sampling from prompts or classes: image i starts from the same noise in every model.

DDIM with guidance, as `StableDiffusionPipeline` does it: time steps are evenly spaced and offset by the scheduler's
`steps_offset`. A sample's seed is hash(root, "sample", task, i).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from palinode.diffusion import spaced
from palinode.errors import UserError
from palinode.guidance import Guided
from palinode.models import Diffuser, to_images
from palinode.sampling import chunk_file, chunks, ddim, noise_generators


def timesteps(config: dict, steps: int) -> list[int]:
    """`steps` time steps, descending ("leading" spacing); UserError for too many. config: scheduler_config.json."""
    total, offset = config["num_train_timesteps"], config.get("steps_offset", 0)
    if steps + offset > total:
        raise UserError(f"sampler: steps must lie in 1..{total - offset}, not {steps}")
    return [t + offset for t in spaced(total, steps)]


@torch.inference_mode()
def draw(
    model: Diffuser,
    prompts: list,
    key: tuple,
    scale: float,
    steps: int,
    folder: Path | None = None,
    chunk: int = 64,
) -> np.ndarray:
    """One image a prompt, uint8 [N, H, W, C]; each prompt is encoded once.

    model: TextToImage or ClassConditional; prompts: texts or classes; key: (root seed, task); scale: of the guidance;
    folder: where finished chunks wait, so that a killed run continues.
    """
    from tqdm import tqdm

    guided, when, plan = _guided(model, prompts, scale), timesteps(model.config, steps), chunks(len(prompts), chunk)

    def make(first: int, count: int) -> np.ndarray:
        some = guided(prompts[first : first + count])
        return to_images(model.decode(ddim(some, noise(model, key, first, count), when, draw=lambda: None)))

    parts = tqdm(plan, "samples", mininterval=5, disable=len(plan) == 1)
    if folder is None:
        return np.concatenate([make(*part) for part in parts])
    return np.concatenate([np.load(chunk_file(folder, part[0], partial(make, *part))) for part in parts])


@torch.no_grad()
def trace(
    model: Diffuser, prompts: list, key: tuple, scale: float, steps: int, chunk: int = 64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sampling as in `draw`, in the model's own space: (ends [N, ...], states [N, S, ...], times [S]).

    states[:, s] is what the model was shown at time step times[s].
    """
    guided, when, ends, states = _guided(model, prompts, scale), timesteps(model.config, steps), [], []
    for first, count in chunks(len(prompts), chunk):
        seen: list[torch.Tensor] = []
        some = guided(prompts[first : first + count], seen)
        ends.append(ddim(some, noise(model, key, first, count), when, draw=lambda: None).cpu())
        states.append(torch.stack(seen, 1).cpu())
    return torch.cat(ends), torch.cat(states), torch.tensor(when)


def _guided(model: Diffuser, prompts: list, scale: float) -> Callable[..., Guided]:
    """prompts -> the model guided by them; all of `prompts` are encoded once, here."""
    unique = list(dict.fromkeys(prompts))
    states, empty = dict(zip(unique, model.condition(unique), strict=True)), model.condition([model.nothing])
    return lambda some, seen=None: Guided(model, torch.stack([states[p] for p in some]), empty, scale, seen)


def noise(model: Diffuser, key: tuple, first: int, count: int) -> torch.Tensor:
    """Initial noise of images first..first+count-1, [count, C, h, w]."""
    drawn = [torch.randn(model.shape, generator=generator) for generator in noise_generators(key, first, count)]
    return torch.stack(drawn).to(model.device)
