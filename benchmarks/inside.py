"""Where the time of stage processes goes: inside networks (forward and backward), importing, and the rest.

inside.py SCRIPT.py ARGUMENT…   runs a script as python would; appends one JSON line to the file $PALINODE_INSIDE
inside.py around COMMAND…       runs a command, e.g. `dvc repro -f`, and does so for every `python` that it starts

The calls that are timed: the outermost torch.nn.Module.__call__ (diffusion model, judge, feature networks),
Tensor.backward and torch.autograd.grad; CPU only, since on a GPU these return before the work is done.
"""

import builtins
import functools
import importlib
import json
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOG = "PALINODE_INSIDE"


class Clock:
    """Adds up the time inside the functions it wraps; a call within a call counts once."""

    def __init__(self):
        self.seconds = 0.0
        self.busy = False

    def __call__(self, function):
        @functools.wraps(function)
        def timed(*arguments, **options):
            if self.busy:
                return function(*arguments, **options)
            self.busy = True
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start
                self.busy = False

        return timed


def watch_networks(networks: Clock) -> None:
    """Time every network of this process. Call it once, after torch is imported."""
    import torch

    torch.nn.Module.__call__ = networks(torch.nn.Module.__call__)
    torch.Tensor.backward = networks(torch.Tensor.backward)
    torch.autograd.grad = networks(torch.autograd.grad)


def run(script: str) -> None:
    """Run `script` with the rest of sys.argv, then log."""
    networks = Clock()
    imports = Clock()
    start = time.perf_counter()
    timed = imports(builtins.__import__)
    watched = False

    def hook(*arguments, **options):
        nonlocal watched
        module = timed(*arguments, **options)
        if not watched and not imports.busy and "torch" in sys.modules:
            watched = True
            watch_networks(networks)
        return module

    builtins.__import__ = hook
    importlib.import_module = imports(importlib.import_module)
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        line = {"wall": time.perf_counter() - start, "networks": networks.seconds, "imports": imports.seconds}
        line |= {"script": Path(script).stem, "diffusers": "diffusers" in sys.modules}
        with open(os.environ[LOG], "a") as log:
            log.write(json.dumps(line) + "\n")


def around(command: list[str]) -> None:
    """Run `command` with a `python` in front of PATH that is this script, and print the shares."""
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "python"
        log = Path(folder) / "log"
        real = shlex.quote(sys.executable)
        me = shlex.quote(str(Path(__file__).resolve()))
        shim.write_text(f'#!/bin/sh\ncase "$1" in\n*.py) exec {real} {me} "$@" ;;\n*) exec {real} "$@" ;;\nesac\n')
        shim.chmod(0o755)
        start = time.perf_counter()
        environment = os.environ | {LOG: str(log), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        status = subprocess.run(command, env=environment, check=False).returncode
        wall = time.perf_counter() - start
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    print(f"{'stage':<12}{'runs':>6}{'seconds':>10}{'in networks':>13}{'importing':>11}")
    for script in sorted({line["script"] for line in lines}):
        mine = [line for line in lines if line["script"] == script]
        seconds, networks, imports = (sum(line[key] for line in mine) for key in ("wall", "networks", "imports"))
        print(f"{script:<12}{len(mine):>6}{seconds:>10.1f}{networks / seconds:>12.1%}{imports:>10.1f}s")
    print(f"{'everything':<18}{wall:>10.1f}{sum(line['networks'] for line in lines) / wall:>12.1%}")
    sys.exit(status)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    around(sys.argv[2:]) if sys.argv[1] == "around" else run(sys.argv[1])
