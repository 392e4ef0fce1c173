"""Text-conditional noise norm (Wen et al., ICLR 2024, arXiv 2407.21720).

m = 1/T sum_t ||eps(x_t, c) - eps(x_t, nothing)||_2 over the whole latent, before the guidance scale, x_t on the guided
DDIM path; then the mean over noises. first, ten, all: the mean over that many of the first steps of one and the same
run. The first step is the noisiest of the sampler's grid (with 50 steps of 1000 and an offset of 1: t = 981).
"""

import torch
from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe
from palinode.sampling import ddim


def prefixes(steps: int) -> dict[str, int]:
    """Score -> how many of the first steps it averages."""
    return {"noise_norm_first": 1, "noise_norm_ten": min(10, steps), "noise_norm_all": steps}


def costs(steps: int) -> dict[str, Cost]:
    return {name: Cost(count) for name, count in prefixes(steps).items()}


def scores(probe: Probe) -> dict[str, Tensor]:
    path = _Path(probe)
    ddim(path, probe.noise, probe.times, draw=lambda: None)
    norms = torch.stack(path.norms)
    counts = prefixes(len(probe.times))
    return {name: probe.by_prompt(norms[:count].mean(0)).mean(1) for name, count in counts.items()}


class _Path:
    """The guided model as the sampler wants it; keeps the norm of every step, [steps] of [N]."""

    def __init__(self, probe: Probe):
        self.probe, self.schedule, self.norms = probe, probe.model.schedule, []

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        nothing, given = self.probe.pair(x_t, int(t[0]))
        self.norms.append((given - nothing).flatten(1).norm(dim=1))
        return self.probe.guided(nothing, given)
