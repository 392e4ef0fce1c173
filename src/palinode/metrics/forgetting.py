"""Has the forgotten image gone? Its rate among samples, and whether the model still restores it from noise."""

from collections.abc import Callable

import numpy as np
import torch

from palinode import sampling, seeds
from palinode.metrics.features import Backbone
from palinode.models import Diffuser, to_images, to_model


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
    *,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Noise each forget image to step t and sample back down through every step (siss.md 2.2).

    Returns uint8 [K * draws, H, W, C], in the order of images, then draws. The noise of (image, draw) is the same for
    every model.
    """
    x, outputs, total = to_model(np.array(forget)), [], len(forget) * draws
    for first in range(0, total, batch):
        pairs = range(first, min(first + batch, total))
        generators = [seeds.generator("eval", "denoise", *divmod(pair, draws)) for pair in pairs]

        def draw(generators=generators) -> torch.Tensor:
            return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(model.device)

        start = x[[pair // draws for pair in pairs]].to(model.device)
        noisy = model.schedule.add_noise(start, draw(), torch.full((len(pairs),), t, device=model.device))
        outputs.append(to_images(sampling.ddpm(model, noisy, list(range(t, -1, -1)), draw)))
        if progress:
            progress(pairs[-1] + 1, total)
    return np.concatenate(outputs)


def cosine_to_originals(outputs: np.ndarray, forget: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Cosine of backbone features between `denoise`'s outputs and their originals: float64 [K * draws], in [-1, 1].

    The place of SSCD in the paper, whose weights may not be redistributed; hence the backbone's name in the metric's.
    """
    found = backbone.features(outputs).astype(np.float64)
    original = np.repeat(backbone.features(forget).astype(np.float64), len(outputs) // len(forget), axis=0)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(original, axis=1)
    return (found * original).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)
