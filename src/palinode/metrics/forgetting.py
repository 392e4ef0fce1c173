"""Has the forgotten image gone? Its rate among samples, and whether the model still restores it from noise."""

import functools

import numpy as np
import torch

from palinode import sampling, seeds
from palinode.metrics.features import Backbone
from palinode.models import Diffuser, to_images, to_model
from palinode.scratch import Checkpoint


def distances(images: np.ndarray, forget: np.ndarray) -> np.ndarray:
    """L2 distance in [0, 1] pixel space to the nearest forget image: float64 [N]; both uint8 [., H, W, C]."""
    nearest = np.full(len(images), np.inf)
    for first in range(0, len(images), 1024):
        block = np.asarray(images[first : first + 1024]).reshape(-1, forget[0].size).astype(np.int64)
        for target in np.asarray(forget).reshape(len(forget), -1).astype(np.int64):
            part = nearest[first : first + 1024]
            np.minimum(part, np.sqrt(((block - target) ** 2).sum(1)) / 255, out=part)
    return nearest


def hits(images: np.ndarray, forget: np.ndarray, hit_distance: float) -> np.ndarray:
    """Which images count as a forget image (siss.md 2.1, p): bool [N], distance < hit_distance."""
    return distances(images, forget) < hit_distance


@torch.inference_mode()
def denoise(
    model: Diffuser,
    forget: np.ndarray,
    t: int,
    draws: int,
    batch: int = 64,
    checkpoint: Checkpoint | None = None,
) -> np.ndarray:
    """Noise each forget image to step t and sample back down through every step (siss.md 2.2).

    Returns uint8 [K * draws, H, W, C], in the order of images, then draws. The noise of (image, draw) is the same for
    every model. checkpoint: takes the state after every sixteenth step, and gives the one to continue from.
    """
    from tqdm import tqdm

    checkpoint, x = checkpoint or Checkpoint(), to_model(np.array(forget)).repeat_interleave(draws, 0)
    generators = [seeds.generator("eval", "denoise", *divmod(pair, draws)) for pair in range(len(x))]

    def draw(part: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=generators[pair]) for pair in part]).to(model.device)

    first, every = t, torch.arange(len(x))
    if saved := checkpoint.load():
        first, x = saved["t"], saved["x"]
        for generator, state in zip(generators, saved["generators"], strict=True):
            generator.set_state(state)
    else:
        x = model.schedule.add_noise(x, draw(every).cpu(), torch.full((len(x),), t))
    for level in tqdm(range(first, -1, -1), "denoise", mininterval=5):
        for part in every.split(batch):
            noise = functools.partial(draw, part)
            x[part] = sampling.ddpm_step(model, x[part].to(model.device), level, level - 1, noise).cpu()
        if level % 16 == 0:
            states = [generator.get_state() for generator in generators]
            checkpoint.save({"t": level - 1, "x": x, "generators": states})
    return to_images(x)


def cosine_to_originals(outputs: np.ndarray, forget: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Cosine of backbone features between `denoise`'s outputs and their originals: float64 [K * draws], in [-1, 1].

    The place of SSCD in the paper, whose weights may not be redistributed; hence the backbone's name in the metric's.
    """
    found = backbone.features(outputs).astype(np.float64)
    original = np.repeat(backbone.features(forget).astype(np.float64), len(outputs) // len(forget), axis=0)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(original, axis=1)
    return (found * original).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)
