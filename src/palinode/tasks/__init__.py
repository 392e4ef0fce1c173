"""Kinds of tasks: one folder a kind, one file a verb (prepare, importance, unlearn, sample, evaluate, count, attack).

A kind's `__init__` says what methods may need of it (OFFERS).
Modules are loaded by name, so that a stage's code is that of its own kind alone.
"""

import importlib
import importlib.util
from types import ModuleType

from palinode.core.errors import UserError


def module_name(kind: str, verb: str) -> str:
    """The module with `run(work, ...)` for a verb and a kind."""
    return f"palinode.tasks.{kind}.{verb}"


def load(kind: str, verb: str = "") -> ModuleType:
    """A kind's module for a verb, or the kind itself. UserError when there is none."""
    name = module_name(kind, verb) if verb else f"palinode.tasks.{kind}"
    if importlib.util.find_spec(name) is None:
        raise UserError(f"tasks of the kind {kind!r} have no {verb or 'folder'}")
    return importlib.import_module(name)
