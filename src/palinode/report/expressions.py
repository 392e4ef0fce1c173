"""The little language of a claim's `check`: Python's own comparisons and arithmetic, and nothing else.

An expression compares numbers; `and` and `or` join comparisons. A number is a literal, a reference `row.metric`, or
made of these with + - * /, abs(), min() and max(). A reference is split at its LAST dot, since row ids may hold dots.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from palinode.core.errors import UserError

REFERENCE = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+")
LONGEST = 2000
TRUTHS = (ast.BoolOp, ast.Compare)
OPERATORS = (ast.And, ast.Or, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub)
ALLOWED = (*TRUTHS, *OPERATORS, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant, ast.Load)


def lowest(first: float, second: float, *others: float) -> float:
    """The least of two or more numbers; NaN where one is, as in NumPy."""
    return np.minimum.reduce([first, second, *others])


def highest(first: float, second: float, *others: float) -> float:
    return np.maximum.reduce([first, second, *others])


SCOPE: dict[str, Any] = {"__builtins__": {}, "abs": np.abs, "min": lowest, "max": highest}
FUNCTIONS = SCOPE.keys() - {"__builtins__"}


@dataclass(frozen=True)
class Check:
    """A compiled expression and its references `row.metric`, in order; in `code` the i-th is called __i__."""

    references: tuple[str, ...]
    code: CodeType

    def evaluate(self, values: Mapping[str, Any]) -> np.ndarray:
        """Whether the expression is true, bool [R] for values [R], or [] for numbers; numbers stand for themselves."""
        arrays = np.broadcast_arrays(0.0, *(np.asarray(values[name], np.float64) for name in self.references))
        shape = arrays[0].shape
        with np.errstate(all="ignore"):
            truths = [self._hold(numbers[1:]) for numbers in zip(*(array.ravel() for array in arrays), strict=True)]
        return np.array(truths, dtype=bool).reshape(shape)

    def _hold(self, numbers: tuple[float, ...]) -> bool:
        return bool(eval(self.code, SCOPE, {f"__{i}__": number for i, number in enumerate(numbers)}))


def parse(expression: str, claim: str) -> Check:
    """Parse a `check` safely; anything outside the language is a UserError that names the claim."""
    names: dict[str, str] = {}
    text = REFERENCE.sub(lambda match: names.setdefault(match[0], f"__{len(names)}__"), expression).strip()
    try:
        tree = ast.parse(text, mode="eval")
        problem = find_problem(tree.body, set(names.values()))
        if "__" in REFERENCE.sub("", expression) or len(text) > LONGEST:
            problem = "unsupported text"
        if not problem:
            check = Check(tuple(names), compile(tree, claim, "eval"))
            check.evaluate(dict.fromkeys(names, 1.0))  # wrong arguments of a function show when it is called
            return check
    except (SyntaxError, ValueError, RecursionError):
        problem = "syntax error"
    except (TypeError, ArithmeticError) as error:
        problem = str(error)
    raise UserError(f"claim {claim}: {problem} in check {expression!r}")


def find_problem(body: ast.expr, names: set[str]) -> str:
    """What an expression holds that the language has not; empty if nothing. names: of the references."""
    if not isinstance(body, TRUTHS):
        return f"{type(body).__name__} where a comparison is needed"
    for node in ast.walk(body):
        if not isinstance(node, ALLOWED):
            return f"unsupported {type(node).__name__}"
        if isinstance(node, ast.Call) and (node.keywords or not isinstance(node.func, ast.Name)):
            return "unsupported call"
        if isinstance(node, ast.Name) and node.id not in names | FUNCTIONS:
            return f"unsupported name {node.id!r}"
        if isinstance(node, ast.Constant) and type(node.value) not in (int, float):
            return f"unsupported constant {node.value!r}"
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr) and isinstance(child, TRUTHS) != isinstance(node, ast.BoolOp):
                return f"{type(child).__name__} inside {type(node).__name__}"
    return ""
