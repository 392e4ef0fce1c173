"""SISS that forgets in part of the time steps and in low frequencies only."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import Source
from palinode.methods.siss import SISS

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass
class SISSSelective(SISS):
    """SISS whose forget term is w_a ||M F(eps_a(m) - eps_theta(m,t))||^2 where lo <= t/T < hi, and 0 elsewhere.

    F: the unitary Fourier transform of a picture; M: 1 for frequencies within `radius` of 0, in cycles a picture, else
    0. times: (lo, hi). The retain term is SISS's.
    """

    source = Source(
        paper="own form, after Not Every Time and Frequency Need to Be Forgotten (time- and frequency-selective data "
        "unlearning)",
        arxiv="2510.17917",
        venue="arXiv preprint, 2025",
        equation="none: what the paper selects is known to us, its loss is not",
        deviations=("No number of the paper is claimed.",),
    )

    times: tuple[Share, Share] = (0.0, 1.0)
    radius: Annotated[float, Field(gt=0)] = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.times
        if low >= high:
            raise ValueError(f"times: no time step lies between {low} and {high}")

    def error(self, name: str, residual: Tensor, t: Tensor, total: int) -> Tensor:
        if name == "retain":
            return super().error(name, residual, t, total)
        low, high = self.times
        chosen = (t >= low * total) & (t < high * total)
        return select_low(residual, self.radius) * chosen


def select_low(residual: Tensor, radius: float) -> Tensor:
    """||M F(residual)||^2 of each picture, [B]: the energy in frequencies within `radius` of 0; residual [B, C, H, W].

    Over all frequencies it is the sum of squares (Parseval).
    """
    height, width = residual.shape[-2:]
    rows = torch.fft.fftfreq(height, 1 / height, device=residual.device)
    columns = torch.fft.fftfreq(width, 1 / width, device=residual.device)
    near = rows[:, None].square() + columns.square() <= radius**2
    spectrum = torch.fft.fft2(residual, norm="ortho")
    return (spectrum.abs().square() * near).flatten(1).sum(1)
