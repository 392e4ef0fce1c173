"""Has the forgotten image gone? Its rate among samples, and whether the model still restores it from noise.

Both as in "Data Unlearning in Diffusion Models" (SISS; Alberti et al., ICLR 2025, arXiv 2503.01034): the rate p of
Table 2 (MNIST T-Shirt), and the similarity of Table 1 (CelebA-HQ) after denoising from an intermediate time step.
"""

import functools

import numpy as np
import torch

from palinode.core import seeds
from palinode.core.images import to_images, to_model
from palinode.core.scratch import Checkpoint
from palinode.metrics.features import Backbone
from palinode.models.denoiser import NoisePredictor
from palinode.sampling import samplers

BLOCK = 1024  # images at a time
CHECKPOINT_EVERY = 16  # time steps


def measure_distances(images: np.ndarray, forget: np.ndarray) -> np.ndarray:
    """L2 distance in [0, 1] pixel space to the nearest forget image: float64 [N]; both uint8 [., H, W, C]."""
    nearest = np.full(len(images), np.inf)
    targets = np.asarray(forget).reshape(len(forget), -1).astype(np.int64)
    for first in range(0, len(images), BLOCK):
        block = np.asarray(images[first : first + BLOCK]).reshape(-1, forget[0].size).astype(np.int64)
        for target in targets:
            part = nearest[first : first + BLOCK]
            np.minimum(part, np.sqrt(((block - target) ** 2).sum(1)) / 255, out=part)
    return nearest


def find_hits(images: np.ndarray, forget: np.ndarray, hit_distance: float) -> np.ndarray:
    """Which images count as a forget image, as the paper's p has it: bool [N], distance < hit_distance."""
    return measure_distances(images, forget) < hit_distance


@torch.inference_mode()
def denoise(
    model: NoisePredictor,
    forget: np.ndarray,
    t: int,
    draws: int,
    batch: int = 64,
    checkpoint: Checkpoint | None = None,
) -> np.ndarray:
    """Noise each forget image to step t and sample back down through every step.

    Returns uint8 [K * draws, H, W, C], in the order of images, then draws. The noise of (image, draw) is the same for
    every model. checkpoint: takes the state after every sixteenth step, and gives the one to continue from.
    """
    from tqdm import tqdm

    checkpoint = checkpoint or Checkpoint()
    x = to_model(np.array(forget)).repeat_interleave(draws, 0)
    generators = [seeds.generator("eval", "denoise", *divmod(pair, draws)) for pair in range(len(x))]
    pairs = torch.arange(len(x))

    def draw(part: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=generators[pair]) for pair in part]).to(model.device)

    saved = checkpoint.load()
    if saved:
        first = saved["t"]
        x = saved["x"]
        for generator, state in zip(generators, saved["generators"], strict=True):
            generator.set_state(state)
    else:
        first = t
        x = model.schedule.add_noise(x, draw(pairs).cpu(), torch.full((len(x),), t))
    for level in tqdm(range(first, -1, -1), "denoise", mininterval=5):
        for part in pairs.split(batch):
            noise = functools.partial(draw, part)
            x[part] = samplers.ddpm_step(model, x[part].to(model.device), level, level - 1, noise).cpu()
        if level % CHECKPOINT_EVERY == 0:
            states = [generator.get_state() for generator in generators]
            checkpoint.save({"t": level - 1, "x": x, "generators": states})
    return to_images(x)


def pair_with(outputs: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """For each of `denoise`'s outputs [K * draws, ...] its own of K originals: [K * draws, ...]."""
    return np.repeat(originals, len(outputs) // len(originals), axis=0)


def compare_with_originals(outputs: np.ndarray, forget: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Cosine of backbone features between `denoise`'s outputs and their originals: float64 [K * draws], in [-1, 1].

    The paper compares by SSCD, whose weights may not be redistributed. Hence the metric bears the backbone's name.
    """
    restored = backbone.features(outputs).astype(np.float64)
    original = pair_with(outputs, backbone.features(forget).astype(np.float64))
    norms = np.linalg.norm(restored, axis=1) * np.linalg.norm(original, axis=1)
    return (restored * original).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)
