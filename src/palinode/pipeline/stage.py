"""What every stage script shares: arguments, one clear line on failure, absences, and a log of time and memory."""

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from palinode.core.errors import Absent, UserError
from palinode.core.io import write_absence
from palinode.core.work import read_runtime
from palinode.pipeline import cluster, graph, warm

LOG = Path("out/log.jsonl")  # in no list of outputs: what differs between identical runs stays out of DVC


def main(run: Callable[..., None]) -> None:
    """Run a stage, `run(work, *arguments)`, with the command line's arguments.

    A UserError ends it with one line and status 1. A stage that ends well adds its seconds, those of the processors and
    its peak memory (GiB, of the device too where that is CUDA) to the log.
    """
    start = time.perf_counter()
    # Importing torch and diffusers makes three quarters of a million objects that stay. Searching them for garbage as
    # often as Python does by default, and once more at the end, takes a quarter of a short stage's time
    # (benchmarks/startup.py).
    gc.set_threshold(100_000)
    script = Path(sys.argv[0]).stem
    arguments = sys.argv[1:]
    try:
        if cluster.is_wanted(script):
            cluster.run(graph.find(script, arguments).name)
            return
        # Several sampling processes are started, and ended, by a process that belongs to the stage's group.
        if warm.is_wanted(script) and read_runtime().processes == 1 and (status := warm.run()) is not None:
            sys.exit(status)
        name = execute(run, script, arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues from here")
    except (MemoryError, RuntimeError) as error:
        message = f"{error}".partition("\n")[0]
        if _wants_memory(error):
            sys.exit(f"error: out of memory: {message or 'smaller batches or chunks need less'}")
        if "does not have a deterministic implementation" in message:
            operation = message.partition(" ")[0]
            sys.exit(f"error: {operation} has no deterministic kernel here: set runtime.deterministic to false")
        raise
    _log(name, time.perf_counter() - start)
    gc.freeze()


def _wants_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether Python, CUDA or torch's allocator on the CPU had too little; the last two are torch's own errors."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def execute(run: Callable[..., None], script: str, arguments: list[str]) -> str:
    """Run the stage that the graph has for a script with these arguments; its name. An absence goes to all outputs."""
    work = graph.find(script, arguments)
    try:
        run(work, *arguments)
    except Absent as absence:
        print(f"{work.name}: absent: {absence}")
        for folder in work.outputs:
            write_absence(folder, str(absence))
    return work.name


def run_tool(run: Callable[..., None]) -> None:
    """Run a tool, `run(*arguments)`; a UserError ends it with one line and status 1."""
    try:
        run(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")


def _log(stage: str, seconds: float) -> None:
    times = os.times()
    cpu = times.user + times.system + times.children_user + times.children_system
    entry: dict[str, str | float] = {"stage": stage, "seconds": round(seconds, 2), "cpu": round(cpu, 2)}
    bytes_a_unit = 1 if sys.platform == "darwin" else 2**10
    entry["GiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_a_unit / 2**30, 2)
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        entry["GiB on the device"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    try:
        LOG.parent.mkdir(exist_ok=True)
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
    except OSError as error:  # the stage's outputs are complete: that its time goes unrecorded must not undo them
        print(f"note: {LOG} was not written: {error.strerror}", file=sys.stderr)
