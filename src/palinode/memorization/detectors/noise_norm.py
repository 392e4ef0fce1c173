"""Text-conditional noise norm (Wen et al., ICLR 2024, arXiv 2407.21720).

m = 1/T sum_t ||eps(x_t, c) - eps(x_t, null)||_2 over the whole latent, before the guidance scale, then the mean over
noises. x_t is on the guided DDIM trajectory. first, ten, all: the mean over that many of the first steps of one run.
The first step is the noisiest of the sampler's grid (with 50 steps of 1000 and an offset of 1: t = 981).
"""

import torch
from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe
from palinode.sampling.samplers import ddim


def prefixes(steps: int) -> dict[str, int]:
    """Score -> how many of the first steps it averages."""
    return {"noise_norm_first": 1, "noise_norm_ten": min(10, steps), "noise_norm_all": steps}


def costs(steps: int) -> dict[str, Cost]:
    return {name: Cost(count) for name, count in prefixes(steps).items()}


def scores(probe: Probe) -> dict[str, Tensor]:
    recorder = _Recorder(probe)
    ddim(recorder, probe.noise, probe.times)
    norms = torch.stack(recorder.norms)
    counts = prefixes(len(probe.times))
    return {name: probe.by_prompt(norms[:count].mean(0)).mean(1) for name, count in counts.items()}


class _Recorder:
    """The guided model as the sampler wants it; keeps the norm of every step, [steps] of [N]."""

    def __init__(self, probe: Probe):
        self.probe = probe
        self.schedule = probe.model.schedule
        self.shape = probe.model.shape
        self.norms: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        return self.probe.model.device

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        unconditional, conditional = self.probe.predict_pair(x_t, int(t[0]))
        self.norms.append((conditional - unconditional).flatten(1).norm(dim=1))
        return self.probe.guide(unconditional, conditional)
