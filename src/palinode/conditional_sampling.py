"""Paired sampling from prompts or classes: image i starts from the same noise in every model.

DDIM with guidance, as `StableDiffusionPipeline` does it: time steps are evenly spaced and offset by the scheduler's
`steps_offset`. A sample's seed is hash(root, "sample", task, i).
"""

from pathlib import Path

import numpy as np
import torch

from palinode import seeds
from palinode.errors import UserError
from palinode.guidance import Guided
from palinode.io import write_array
from palinode.models import Diffuser, to_images
from palinode.sampling import chunks, ddim


def timesteps(config: dict, steps: int) -> list[int]:
    """`steps` time steps, descending ("leading" spacing); UserError for too many. config: scheduler_config.json."""
    total, offset = config["num_train_timesteps"], config.get("steps_offset", 0)
    if not 1 <= steps < total:
        raise UserError(f"sampler: steps must lie in 1..{total - 1}, not {steps}")
    return [i * (total // steps) + offset for i in reversed(range(steps))]


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

    unique = list(dict.fromkeys(prompts))
    states, empty = dict(zip(unique, model.condition(unique), strict=True)), model.condition([model.nothing])
    images, when, plan = [], timesteps(model.config, steps), chunks(len(prompts), chunk)
    for first, count in tqdm(plan, "samples", mininterval=5, disable=len(plan) == 1):
        path = folder / f"chunk-{first}.npy" if folder else None
        if path and path.exists():
            images.append(np.load(path))
            continue
        condition = torch.stack([states[prompt] for prompt in prompts[first : first + count]])
        guided = Guided(model, condition, empty, scale)
        latents = ddim(guided, noise(model, key, first, count), when, draw=lambda: None)
        images.append(to_images(model.decode(latents)))
        if path:
            write_array(path, images[-1])
    return np.concatenate(images)


def noise(model: Diffuser, key: tuple, first: int, count: int) -> torch.Tensor:
    """Initial noise of images first..first+count-1, [count, C, h, w]."""
    generators = [seeds.generator(key[0], "sample", key[1], first + i) for i in range(count)]
    return torch.stack([torch.randn(model.shape, generator=g) for g in generators]).to(model.device)
