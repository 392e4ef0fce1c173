"""Unlearning methods: one file each, found by file name. A file that starts with `_` is a helper, not a method.

A method is a dataclass, frozen unless it keeps a state; its fields are its options in `params.yaml`. It returns named
losses for a micro-batch; the training loop accumulates one flat gradient per name, and `combine` makes the update from
them once per optimiser step.
"""

import dataclasses
import importlib
import importlib.util
import inspect
from typing import TYPE_CHECKING

from palinode.errors import UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor


class Method:
    """What the training loop asks of a method.

    needs_anchor: trains with an anchor in the target's place, so it has no place in the family `data`; needs_saliency,
    needs_fisher: what `begin` must be given; closed_form: edits the weights by `edit` instead of taking steps.
    """

    needs_anchor = needs_saliency = needs_fisher = closed_form = False

    def begin(self, model, helpers: dict) -> None:
        """Called once before the first step. helpers: "seed", and what the method says it needs."""

    def losses(self, model, batch) -> dict[str, "Tensor"]:
        """Named scalar losses of one micro-batch (`training.Batch`), each to be differentiated by itself.

        Sums over pixels, mean over the batch, as in the SISS code.
        """
        raise TypeError(f"{type(self).__name__} defines no losses")

    def combine(self, grads: dict[str, "Tensor"]) -> tuple["Tensor", dict[str, float]]:
        """(descent direction, which may overwrite one of the flat gradients, or None for no step; numbers to log)."""
        raise TypeError(f"{type(self).__name__} defines no combine")

    def after_step(self) -> None:
        """Called after every optimiser step."""

    def state_dict(self) -> dict:
        """What a method with a state of its own adds to a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """The opposite of `state_dict`."""


def find(name: str, where: str = "") -> type[Method]:
    """The class of `methods/<name>.py`; UserError for an unknown name, or a file that does not define exactly one."""
    module_name = f"{__name__}.{name}"
    if name.startswith("_") or not name.isidentifier() or importlib.util.find_spec(module_name) is None:
        raise UserError(f"{where}unknown method {name!r}: there is no methods/{name}.py")
    module = importlib.import_module(module_name)
    classes = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if c.__module__ == module_name and issubclass(c, Method)
    ]
    if len(classes) != 1:
        raise UserError(f"methods/{name}.py must define exactly one subclass of Method, it has {len(classes)}")
    return classes[0]


def load(name: str, options: dict | None = None, where: str = "") -> Method:
    """The method `name` with its options set; UserError for an unknown name, option or a wrong type."""
    cls = find(name, where)
    return cls(**_checked(cls, options or {}, where))


def _checked(cls: type, options: dict, where: str) -> dict:
    from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

    fields = {f.name: (f.type, ... if f.default is dataclasses.MISSING else f.default) for f in dataclasses.fields(cls)}
    schema = create_model(cls.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    try:
        return TypeAdapter(schema).validate_python(options).model_dump()
    except ValidationError as error:
        raise UserError(f"{where}{one_line(error)}") from None
