"""What every stage script shares: arguments, threads, device, and one clear line on failure."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from palinode import settings
from palinode.errors import UserError

CELLS = Path("out/cells")


def main(run: Callable[..., None]) -> None:
    """Run a stage with the command line's arguments; a UserError ends it with one line and status 1."""
    try:
        run(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues from here")


def cell(task: str, row: str, seed: str | int) -> Path:
    """The folder of one cell of the results."""
    return CELLS / task / row / str(seed)


def device():
    """The device to run on, from `runtime`, with torch set up to give the same bytes every time."""
    import torch

    runtime = settings.runtime()
    torch.set_num_threads(runtime.threads)
    torch.backends.cudnn.benchmark = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    name = runtime.device if runtime.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"runtime.device: {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return torch.device(name)
