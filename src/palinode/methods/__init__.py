"""Unlearning methods: one file each, found by file name. A file that starts with `_` is a helper, not a method.

A method is a class derived from `Method` with `@dataclass` above it, not frozen, so that it may keep a state. Its
fields are its options in `params.yaml`; a range is written `Annotated[float, Field(ge=0)]`, with pydantic's `Field`.
What the class says of itself (`needs`, `closed_form`, `source`) has no annotation, which would make it an option.

It returns named losses for a micro-batch. The training loop accumulates one flat gradient per name, and `combine` makes
the update from them once per optimiser step.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from palinode.core.errors import UserError, one_line
from palinode.methods._contract import LOSSES, NEEDS, BatchLike, ConceptBatchLike, Method, Source

__all__ = [
    "LOSSES",
    "NEEDS",
    "BatchLike",
    "ConceptBatchLike",
    "Method",
    "Source",
    "find",
    "load",
    "names",
]


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str, where: str = "") -> type[Method]:
    """The class of `methods/<name>.py`; UserError for an unknown name, or a file that is no method.

    where: what to put before a message, as in "rows.naive.method: ".
    """
    module_name = f"{__name__}.{name}"
    if not name.isidentifier():
        raise UserError(f"{where}unknown method {name!r}: a method has the name of its file, without .py")
    if name.startswith("_") or importlib.util.find_spec(module_name) is None:
        raise UserError(f"{where}unknown method {name!r}: there is no methods/{name}.py")
    if name in globals() and module_name not in sys.modules:
        raise UserError(f"{where}methods/{name}.py has the name of something that this package uses: rename the file")
    module = _import(module_name, f"{where}methods/{name}.py")
    defined = {
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module_name and issubclass(value, Method)
    }
    if len(defined) != 1:
        listed = ", ".join(sorted(cls.__name__ for cls in defined)) or "none"
        raise UserError(f"{where}methods/{name}.py must define exactly one subclass of Method, it has {listed}")
    cls = defined.pop()
    _check_class(cls, f"{where}methods/{name}.py: {cls.__name__}")
    return cls


def load(name: str, options: dict[str, Any] | None = None, where: str = "") -> Method:
    """The method `name` with its options set; UserError for an unknown name or option, a wrong type or range."""
    cls = find(name, where)
    checked = _check_options(cls, options or {}, where)
    try:
        method = cls(**checked)
    except (TypeError, ValueError) as error:  # of a method's own __post_init__
        raise UserError(f"{where}{name}: {_flatten(error)}") from None
    _check_needs(method, f"{where}methods/{name}.py: {cls.__name__}")
    return method


def _import(module_name: str, file: str) -> ModuleType:
    """A method's module; whatever is wrong in it is one line that names the file and the cause."""
    try:
        return importlib.import_module(module_name)
    except SyntaxError as error:
        # It may be in a helper that the file imports.
        line = f"{Path(error.filename).name}, line {error.lineno}" if error.filename else f"line {error.lineno}"
        raise UserError(f"{file} cannot be imported: {error.msg} ({line})") from None
    except Exception as error:
        if isinstance(error, TypeError) and "frozen" in str(error):
            raise UserError(f"{file}: write @dataclass without frozen=True, as all methods do") from error
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {_flatten(error)}") from error


def _check_class(cls: type[Method], where: str) -> None:
    """What a class must have, checked before anything is computed; `where` names it."""
    if "__dataclass_fields__" not in vars(cls):
        raise UserError(f"{where} is no dataclass: write @dataclass above it")
    for field in _option_fields(cls):
        if field.name in vars(Method):
            raise UserError(f"{where} annotates {field.name!r}, which makes it an option: write it without a type")
        if field.name.startswith("_"):
            raise UserError(f"{where} has an option {field.name!r}: write field(init=False) for what is no option")
    for method in ("edit",) if cls.closed_form else ("losses", "combine"):
        if getattr(cls, method) is getattr(Method, method):
            raise UserError(f"{where} defines no {method}")


def _check_needs(method: Method, where: str) -> None:
    """A frozenset of words of NEEDS, and nothing else."""
    needs = method.needs
    if not isinstance(needs, frozenset):
        raise UserError(f"{where}: needs must be a frozenset of words (got {needs!r})")
    unknown = sorted(map(str, needs - NEEDS.keys()))
    if unknown:
        raise UserError(f"{where} needs {', '.join(unknown)}, which is not one of {', '.join(NEEDS)}")


def _option_fields(cls: type[Method]) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]


def _check_options(cls: type[Method], options: dict[str, Any], where: str) -> dict[str, Any]:
    """The options, converted to the types of their fields."""
    fields = {field.name: field for field in _option_fields(cls)}
    for name in options:
        if name not in fields:
            raise UserError(f"{where}{name}: unknown parameter")
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in options:
            raise UserError(f"{where}{name}: missing parameter")
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise UserError(f"{where}the type of an option of {cls.__name__} is unknown: {_flatten(error)}") from error
    return {name: _check_option(hints[name], value, f"{where}{name}") for name, value in options.items()}


def _check_option(hint: Any, value: Any, where: str) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
        # A bool is an int to Python. Strictly read, it is one only where a bool is asked for.
        return adapter.validate_python(value, strict=True if isinstance(value, bool) else None)
    except ValidationError as error:
        separator = "." if error.errors(include_url=False)[0]["loc"] else ": "
        raise UserError(f"{where}{separator}{one_line(error)}") from None
    except PydanticUserError as error:
        raise UserError(f"{where}: no value can be checked against its type: {_flatten(error)}") from None


def _flatten(error: BaseException) -> str:
    """The message of an exception in one line."""
    return " ".join(str(error).split()) or type(error).__name__
