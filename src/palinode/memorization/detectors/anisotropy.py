"""Anisotropy of the log-probability (Asthana and Belagiannis, ICLR 2026, arXiv 2601.20642).

g1 ||eps_c - eps_0||_2 at the sampler's first time step + g2 mean cos(eps_0, eps_c - eps_0) at its third-last one, both
on the same pure noise. The cosine is between the channels of a pixel, its mean over pixels and noises. (g1, g2) =
(1, 2), those for Stable Diffusion 1.4.

Deviation: the norm grows with the root of the latent's size, the cosine does not. So the norm is scaled to Stable
Diffusion's 4 x 64 x 64, which keeps the meaning of the weights on smaller latents.
"""

import torch.nn.functional as F
from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe

NORM = 1.0  # g1
COSINE = 2.0  # g2
SIZE = 4 * 64 * 64


def costs(steps: int) -> dict[str, Cost]:
    return {"anisotropy": Cost(2)}


def scores(probe: Probe) -> dict[str, Tensor]:
    unconditional, conditional = probe.predict_pair(probe.noise, probe.times[0])
    norm = (conditional - unconditional).flatten(1).norm(dim=1) * (SIZE / conditional[0].numel()) ** 0.5
    unconditional, conditional = probe.predict_pair(probe.noise, probe.times[-3])
    cosine = F.cosine_similarity(unconditional, conditional - unconditional, dim=1).mean((1, 2))
    return {"anisotropy": probe.by_prompt(NORM * norm + COSINE * cosine).mean(1)}
