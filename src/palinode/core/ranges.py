"""The ranges that quantities keep, each with a scale on which it has no ends: where intervals are computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Array = np.ndarray
Name = Literal["share", "positive", "cosine", "at most 1", "any"]
LEAST = 1e-9  # nearer to an end than this counts as this near


@dataclass(frozen=True)
class Range:
    """to_line: quantity -> a number without ends; from_line: its inverse; slope: the derivative of to_line."""

    to_line: Callable[[Array], Array]
    from_line: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _inside(x: Array, low: float, high: float) -> Array:
    return np.clip(x, low + LEAST, high - LEAST)


def _logit(x: Array) -> Array:
    inside = _inside(x, 0, 1)
    return np.log(inside) - np.log1p(-inside)


def _logit_slope(x: Array) -> Array:
    inside = _inside(x, 0, 1)
    return 1 / (inside * (1 - inside))


def _positive(x: Array) -> Array:
    return np.maximum(x, LEAST)


RANGES: dict[str, Range] = {
    "share": Range(_logit, lambda y: 1 / (1 + np.exp(-y)), _logit_slope),
    "positive": Range(lambda x: np.log(_positive(x)), np.exp, lambda x: 1 / _positive(x)),
    # Fisher's z.
    "cosine": Range(lambda x: np.arctanh(_inside(x, -1, 1)), np.tanh, lambda x: 1 / (1 - _inside(x, -1, 1) ** 2)),
    "at most 1": Range(lambda x: -np.log(_positive(1 - x)), lambda y: 1 - np.exp(-y), lambda x: 1 / _positive(1 - x)),
    "any": Range(lambda x: x, lambda y: y, np.ones_like),
}
