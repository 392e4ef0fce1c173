"""Why a job failed, in one line."""

import re

from palinode.run.processes import log_of

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
KILLED = re.compile(r"exited with (?:-9|137)\b")


def explain(name: str, status: int) -> str:
    """The line with which the stage ended, else DVC's, else what its exit status says."""
    log = log_of(name)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = COLOURS.sub("", text).splitlines()
    own = [line for line in lines if line.startswith(("error: ", "interrupted: ", "Fatal Python error: "))]
    if own:
        return own[-1].removeprefix("error: ")
    if status == -9 or any(KILLED.search(line) for line in lines):
        return "killed by the system, most likely for want of memory: let fewer stages run at once (JOBS)"
    of_dvc = [line for line in lines if line.startswith("ERROR: ")]
    if of_dvc:
        return of_dvc[-1].removeprefix("ERROR: ")
    return f"ended with status {status}"
