"""Similarity of first-step noise differences between noises (NeMo, Hintersdorf et al., NeurIPS 2024, arXiv 2406.02366).

The difference is the guided noise prediction at the first step minus the noise itself, each channel scaled to [0, 1]. A
memorized prompt pulls every noise to the same picture, so that the differences look alike. The score is the largest
similarity of two noises: the repository takes each noise's largest, and two that agree are enough.

Similarity is NeMo's multi-scale SSIM (three equal scales, window 11) where a latent is large enough for it. A latent of
at most 40 pixels is not. There it is the SSIM of one scale with a flat window of 5, our adaptation, so that the paper's
threshold of 0.428 does not carry over. The repository uses 10 noises, and the time step of the sampler's second step.
"""

import torch
from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe

GENERATIONS = 2
SCALES = (0.33, 0.33, 0.33)
LARGEST_SMALL = 40  # pixels; (window - 1) 2^(scales - 1)


def costs(steps: int) -> dict[str, Cost]:
    return {"seed_similarity": Cost(1)}


def scores(probe: Probe) -> dict[str, Tensor]:
    difference = probe.guide(*probe.predict_pair(probe.noise, probe.times[0])) - probe.noise
    low = difference.amin((2, 3), keepdim=True)
    high = difference.amax((2, 3), keepdim=True)
    scaled = probe.by_prompt((difference - low) / (high - low).clamp_min(1e-12))
    first, second = torch.combinations(torch.arange(probe.generations), 2).T
    pairs = similarity(scaled[:, first].flatten(0, 1), scaled[:, second].flatten(0, 1))
    return {"seed_similarity": pairs.view(len(scaled), -1).amax(1)}


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of each pair, [N, C, h, w] in [0, 1] -> [N], at most 1."""
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    values: Tensor | tuple[Tensor, Tensor]
    if min(a.shape[-2:]) > LARGEST_SMALL:
        values = multiscale_structural_similarity_index_measure(a, b, betas=SCALES, reduction="none", data_range=1.0)
    else:
        values = structural_similarity_index_measure(
            a, b, gaussian_kernel=False, kernel_size=5, reduction="none", data_range=1.0
        )
    return torch.as_tensor(values)
