"""What a training step sees: micro-batches that depend on the step's number alone, so that resuming needs no state."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from palinode.core import seeds
from palinode.core.image_set import ImageSet
from palinode.core.images import to_model

B = TypeVar("B")


class StepBatches(ABC, Generic[B]):
    """Step number -> its micro-batches.

    key: parts of the seed; the step's number is added to it. accumulate: micro-batches a step.
    """

    def __init__(self, key: tuple, accumulate: int = 1):
        self.key = key
        self.accumulate = accumulate

    def __call__(self, step: int) -> Iterator[B]:
        generator = seeds.generator(*self.key, step)
        for _ in range(self.accumulate):
            yield self.draw(generator, step)

    @abstractmethod
    def draw(self, generator: torch.Generator, step: int) -> B:
        """One micro-batch; all its randomness comes from the step's generator."""


@dataclass
class Batch:
    """One micro-batch, the same for every method at a given task, subject, seed and step.

    x, a: retain and forget images [B, C, H, W] in [-1, 1]; t: int64 [B] in 0..T-1; eps: [B, C, H, W] ~ N(0, I);
    u: [B] ~ U[0, 1), which decides SISS's mixture. c_x, c_a: conditions of x and a, where the model takes one;
    neighbours: the retained images nearest to each of a, [B, K, C, H, W], where they were asked for. Further draws
    continue the step's generator.
    """

    x: Tensor
    a: Tensor
    t: Tensor
    eps: Tensor
    u: Tensor
    total: int
    generator: torch.Generator
    c_x: Tensor | None = None
    c_a: Tensor | None = None
    neighbours: Tensor | None = None

    def redraw(self) -> tuple[Tensor, Tensor]:
        """An independent (t, eps)."""
        t, eps = draw_noise(self.x.shape, self.total, self.generator)
        return t.to(self.x.device), eps.to(self.x.device)

    def uniform(self) -> Tensor:
        """An independent tensor like x, ~ U[0, 1)."""
        return torch.rand(self.x.shape, generator=self.generator).to(self.x.device)


def draw_noise(shape: tuple[int, ...], total: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """t int64 [B] ~ U{0..total-1} and eps ~ N(0, I) of `shape` [B, ...]."""
    return torch.randint(total, shape[:1], generator=generator), torch.randn(shape, generator=generator)


def draw_rows(count: int, size: int, generator: torch.Generator) -> Tensor:
    """`size` row numbers of 0..count-1 with replacement, int64 [size]."""
    return torch.randint(count, (size,), generator=generator)


class ImageBatches(StepBatches[Batch]):
    """Retain and forget images drawn with replacement from uint8 arrays [N, H, W, C].

    total: time steps of the schedule; size: images a micro-batch, from each of the two sets; neighbours: rows of the
    retain set nearest to each image to forget, int64 [forget, K], or None.
    """

    def __init__(
        self,
        retain: ImageSet,
        forget: ImageSet,
        total: int,
        size: int,
        accumulate: int,
        device: str | torch.device,
        key: tuple,
        neighbours: np.ndarray | None = None,
    ):
        super().__init__(key, accumulate)
        self.neighbours = neighbours
        self.retain = retain
        self.forget = forget
        self.total = total
        self.size = size
        self.device = device

    def draw(self, generator: torch.Generator, step: int) -> Batch:
        x = _read(self.retain, draw_rows(len(self.retain), self.size, generator).numpy())
        chosen = draw_rows(len(self.forget), self.size, generator).numpy()
        a = _read(self.forget, chosen)
        t, eps = draw_noise(x.shape, self.total, generator)
        u = torch.rand(self.size, generator=generator)
        return Batch(
            x=x.to(self.device),
            a=a.to(self.device),
            t=t.to(self.device),
            eps=eps.to(self.device),
            u=u.to(self.device),
            total=self.total,
            generator=generator,
            neighbours=None if self.neighbours is None else self._read_neighbours(self.neighbours[chosen]),
        )

    def _read_neighbours(self, rows: np.ndarray) -> Tensor:
        """rows: [B, K] of the retain set; images [B, K, C, H, W]."""
        return _read(self.retain, rows.flatten()).unflatten(0, rows.shape).to(self.device)


def _read(images: ImageSet, rows: np.ndarray) -> Tensor:
    return to_model(np.asarray(images[rows]))
