"""The one error a user can cause and its wording, and the one way to be absent."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Bad input. Its message is one clear line naming the cause; stages print it and exit with status 1."""


def one_line(error: "ValidationError") -> str:
    """The first problem of a pydantic error as `key.path: message (got value)`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    message = {"Extra inputs are not permitted": "unknown parameter", "Field required": "missing parameter"}.get(
        message, message
    )
    shown = "" if problem["type"] in ("missing", "value_error", "extra_forbidden") else f" (got {problem['input']!r})"
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


class Absent(Exception):
    """Something does not exist, and why: an output then holds the reason in `absent.txt`, a metric as its reason."""
