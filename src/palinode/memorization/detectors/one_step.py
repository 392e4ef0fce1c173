"""Scores from one denoising step (Webster 2023, arXiv 2305.08694).

One Heun step from the largest Karras sigma ends at sigma 0, where its second half is skipped: the outcome is the
guided prediction of x_0. In the terms of this package it starts from t = T - 1 and x_t = sigma_t n, and the Karras
sigma is sigma_t / gamma_t.

one_step_mse (white box): mean squared difference between the noise at that sigma and the outcome. That it is high for
memorized prompts is our assumption, since guidance then adds more to the prediction; the sign is not published.

one_step_edges (black box): the outcomes are decoded and resized to 256 px. Smaller pictures are enlarged, so that the
threshold keeps its meaning. A pixel is an edge if its Sobel magnitudes, summed over the colours, exceed 1.5 (pixels in
[0, 1]). It counts if more than half of the noises have an edge there. The score is the share of such pixels. As in the
official code (`ryanwebster90/onestep-extraction`), the Sobel filter takes a picture for a volume and smooths over the
colours too. The cost leaves out the decoder.

Deviation: the official code uses one noise for the first and four for the second. Here both use all generations, the
first their mean.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe

SIDE = 256
EDGE = 1.5
SMOOTH = torch.tensor([1.0, 2.0, 1.0])
DERIVE = torch.tensor([-1.0, 0.0, 1.0])


def costs(steps: int) -> dict[str, Cost]:
    return {"one_step_mse": Cost(1), "one_step_edges": Cost(1)}


def scores(probe: Probe) -> dict[str, Tensor]:
    schedule = probe.model.schedule
    last = len(schedule) - 1
    gamma = float(schedule.gamma[last])
    sigma = float(schedule.sigma[last])
    eps = probe.guide(*probe.predict_pair(sigma * probe.noise, last))
    start = sigma / gamma * probe.noise
    outcome = start - sigma / gamma * eps
    mse = (start - outcome).square().flatten(1).mean(1)
    edges = find_edges(probe.model.decode(outcome).clamp(-1, 1) / 2 + 0.5)
    agreed = probe.by_prompt(edges.float()).mean(1) > 0.5
    return {"one_step_mse": probe.by_prompt(mse).mean(1), "one_step_edges": agreed.float().mean((1, 2))}


def find_edges(images: Tensor) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] -> whether each pixel is an edge, bool [N, 256, 256]."""
    images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
    volumes = F.pad(images.unsqueeze(1), (1,) * 6, mode="replicate")
    across = torch.einsum("c,y,x->cyx", SMOOTH, SMOOTH, DERIVE).to(images.device)
    parts = [F.conv3d(volumes, kernel[None, None]).squeeze(1) for kernel in (across, across.mT)]
    return torch.hypot(parts[0], parts[1]).sum(1) > EDGE
