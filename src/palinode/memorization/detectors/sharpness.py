"""Sharpness along the score difference (Jeon et al., ICML 2025, arXiv 2412.04140).

||J_c d - J_0 d||_2 at the sampler's first step, d = s_c - s_0, s = -eps / sigma_t the score and J its Jacobian in x_t;
the mean over noises. Both products come from one forward-mode derivative of a guidance pair.
"""

from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe


def costs(steps: int) -> dict[str, Cost]:
    return {"sharpness": Cost(2, jvps=1)}


def scores(probe: Probe) -> dict[str, Tensor]:
    t = probe.times[0]
    sigma = float(probe.model.schedule.sigma[t])
    nothing, given = probe.pair(probe.noise, t)
    without, along = probe.pair_jvp(probe.noise, t, -(given - nothing) / sigma)
    return {"sharpness": probe.by_prompt(((along - without) / sigma).flatten(1).norm(dim=1)).mean(1)}
