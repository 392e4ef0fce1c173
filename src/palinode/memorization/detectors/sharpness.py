"""Sharpness along the score difference (Jeon et al., ICML 2025, arXiv 2412.04140).

||J_c d - J_0 d||_2 at the sampler's first step, with d = s_c - s_0, s = -eps / sigma_t the score, and J its Jacobian in
x_t; the mean over noises. Both products come from one forward-mode derivative of a guidance pair.
"""

from torch import Tensor

from palinode.memorization.detectors import Cost
from palinode.memorization.probe import Probe


def costs(steps: int) -> dict[str, Cost]:
    return {"sharpness": Cost(2, jvps=1)}


def scores(probe: Probe) -> dict[str, Tensor]:
    t = probe.times[0]
    sigma = float(probe.model.schedule.sigma[t])
    unconditional, conditional = probe.predict_pair(probe.noise, t)
    direction = -(conditional - unconditional) / sigma
    along_unconditional, along_conditional = probe.differentiate_pair(probe.noise, t, direction)
    curvature = ((along_conditional - along_unconditional) / sigma).flatten(1).norm(dim=1)
    return {"sharpness": probe.by_prompt(curvature).mean(1)}
