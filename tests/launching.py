"""What tests of `make repro` share."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil

BROKEN = '''"""A method that cannot make a step."""

from dataclasses import dataclass

from palinode.methods import Method


@dataclass
class Broken(Method):
    """It fails."""

    def losses(self, model, batch):
        raise MemoryError("no room")

    def combine(self, grads):
        return grads["retain"], {}
'''


def is_running(folder: Path) -> bool:
    """Whether a stage of the project in `folder` unlearns, or its warm process, or a copy of that, is there."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = {"stages/unlearn.py", "palinode.pipeline.warm"}.intersection(process.cmdline())
            if ours and process.cwd() == str(folder):
                return True
    return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Return as soon as it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
