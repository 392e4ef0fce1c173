"""The one error a user can cause and its wording, and the one way to be absent."""


class UserError(Exception):
    """Bad input. Its message is one clear line naming the cause; stages print it and exit with status 1."""


def one_line(error) -> str:
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
    """A stage has nothing to make, and why. Its outputs then hold the reason in `absent.txt`."""
