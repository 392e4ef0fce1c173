"""What every stage script shares: arguments, threads, device, and one clear line on failure."""

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from palinode import settings
from palinode.errors import UserError

CELLS = Path("out/cells")
LOG = Path("out/log.jsonl")  # in no list of outputs: what differs between identical runs stays out of DVC


def main(run: Callable[..., None]) -> None:
    """Run a stage with the command line's arguments; a UserError ends it with one line and status 1.

    A stage that ends well adds its seconds and its peak memory (GiB, of the device too where that is CUDA) to the log.
    """
    start = time.perf_counter()
    # importing torch and diffusers makes three quarters of a million objects that stay: searching them for garbage as
    # often as Python does by default, and once more at the end, takes a quarter of the time
    gc.set_threshold(100_000)
    try:
        run(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues from here")
    _log(time.perf_counter() - start)
    gc.freeze()


def _log(seconds: float) -> None:
    spent = {"stage": " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]]), "seconds": round(seconds, 2)}
    bytes_a_unit = 1 if sys.platform == "darwin" else 2**10
    spent["GiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_a_unit / 2**30, 2)
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        spent["GiB on the device"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    try:
        LOG.parent.mkdir(exist_ok=True)
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps(spent) + "\n")
    except OSError as error:  # the stage's outputs are complete: that its time goes unrecorded must not undo them
        print(f"note: {LOG} was not written: {error.strerror}", file=sys.stderr)


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
