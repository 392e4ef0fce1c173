"""Paired sampling from prompts: image i starts from the same latent noise in every model.

DDIM with guidance, as `StableDiffusionPipeline` does it: time steps are evenly spaced and offset by the scheduler's
`steps_offset`. A sample's seed is hash(root, "sample", task, i).
"""

import numpy as np
import torch

from palinode import seeds
from palinode.errors import UserError
from palinode.guidance import Guided
from palinode.models import to_images
from palinode.sampling import chunks, ddim
from palinode.text_to_image import TextToImage


def timesteps(config: dict, steps: int) -> list[int]:
    """`steps` time steps, descending ("leading" spacing). config: scheduler_config.json.

    UserError for too many steps, or for a scheduler whose last step does not end at x_0 (`set_alpha_to_one: false`).
    """
    total, offset = config["num_train_timesteps"], config.get("steps_offset", 0)
    if not 1 <= steps < total:
        raise UserError(f"sampler: steps must lie in 1..{total - 1}, not {steps}")
    if not config.get("set_alpha_to_one", True):
        raise UserError("sampler: a scheduler with `set_alpha_to_one: false` is not supported")
    return [i * (total // steps) + offset for i in reversed(range(steps))]


@torch.inference_mode()
def draw(model: TextToImage, prompts: list[str], key: tuple, scale: float, steps: int, chunk: int = 64) -> np.ndarray:
    """One image a prompt, uint8 [N, H, W, 3]; `key` is (root seed, task). Each prompt is encoded once."""
    from tqdm import tqdm

    unique = list(dict.fromkeys(prompts))
    states = dict(zip(unique, model.condition(unique), strict=True))
    empty, when, images = model.condition([""]), timesteps(model.config, steps), []
    for first, count in tqdm(chunks(len(prompts), chunk), "samples", mininterval=5):
        noise = torch.stack([
            torch.randn(model.shape, generator=seeds.generator(key[0], "sample", key[1], i))
            for i in range(first, first + count)
        ])  # fmt: skip
        condition = torch.stack([states[prompt] for prompt in prompts[first : first + count]])
        guided = Guided(model, condition, empty, scale)
        latents = ddim(guided, noise.to(model.device), when, draw=lambda: None)
        images.append(to_images(model.decode(latents)))
    return np.concatenate(images)
