"""Prompt-side detectors: one file each, found by file name.

A detector is a module with two functions. `costs(steps)` names its scores and says what each needs, `scores(probe)`
computes them; a high score means memorized. `GENERATIONS`, where it is set, is the least number of noises a prompt.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import NamedTuple

from palinode.core.errors import UserError


class Cost(NamedTuple):
    """What a score needs for one prompt and one noise.

    pairs: guidance pairs sent forward (two network evaluations each), those along which a derivative is taken included;
    jvps: of them, pairs with a derivative (a Jacobian-vector product).
    """

    pairs: int
    jvps: int = 0


def find(name: str, where: str = "") -> ModuleType:
    """The detector `name`; UserError for an unknown one. where: what the message starts with."""
    module_name = f"{__name__}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module_name) is None:
        raise UserError(f"{where}unknown detector {name!r}: there is no memorization/detectors/{name}.py")
    module = importlib.import_module(module_name)
    if not (callable(getattr(module, "costs", None)) and callable(getattr(module, "scores", None))):
        raise UserError(f"{where}memorization/detectors/{name}.py must define costs(steps) and scores(probe)")
    return module


def check(name: str, generations: int, where: str = "") -> None:
    """UserError unless the detector exists and that many noises a prompt are enough for it."""
    needed = getattr(find(name, where), "GENERATIONS", 1)
    if generations < needed:
        raise UserError(f"{where}{name} compares noises and needs at least {needed} generations, not {generations}")
