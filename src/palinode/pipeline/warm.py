"""Stages that start at once: one process imports torch and diffusers and forks a copy of itself for every stage.

The process of a stage, which DVC has started, hands its command line, environment and output to the warm process and
waits for its copy. Only packages of others are imported beforehand, so that a stage runs the project's code as it is.
"""

import contextlib
import faulthandler
import gc
import importlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

from palinode.pipeline.cluster import STAY

ADDRESS = "PALINODE_WARM"  # the warm process's socket
KILLED = 128 + signal.SIGKILL
STREAMS = (0, 1, 2)
PACKAGES = (  # what stages import, most of it late
    "torch",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_ddim",
    "transformers.models.clip.modeling_clip",
    "torchmetrics.functional.image",
    "torchmetrics.image.inception",
    "torchmetrics.image.kid",
    "cleanfid.fid",
    "scipy.stats",
    "safetensors.torch",
    "PIL.Image",
    "tqdm",
)


class WarmProcess:
    """The warm process, as its user holds it; it ends with its user. log: the file that takes what it prints."""

    def __init__(self, log: Path) -> None:
        self._folder = TemporaryDirectory(prefix="palinode-")
        self.address = str(Path(self._folder.name) / "warm")
        # Bound before the process is there: stages that are too early wait instead of failing.
        with socket.socket(socket.AF_UNIX) as listener, open(log, "wb") as output:
            listener.bind(self.address)
            listener.listen()
            number = listener.fileno()
            command = [sys.executable, "-m", "palinode.pipeline.warm", str(number)]
            # In a session of its own, Ctrl-C leaves it alone; the end of its input is the end of its user.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[number],
                start_new_session=True,
                # Asked otherwise whether there is a GPU, torch would start CUDA, which no copy could use.
                env=_without_address() | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            )

    def stop(self) -> None:
        """End it, even while it imports. Its copies end with the stages that asked for them."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def is_possible() -> bool:
    """Whether a process that has imported torch can be copied, which macOS's own libraries do not allow."""
    return sys.platform == "linux"


# In the process of a stage


def is_wanted(script: str) -> bool:
    """Whether this stage is to run in a copy of the warm process."""
    return ADDRESS in os.environ and script not in STAY


def run() -> int | None:
    """Run this process's own command line in a copy of the warm process; its exit status.

    None, with a note, when the warm process has ended: then this process has to do the work itself.
    """
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(os.environ[ADDRESS])
            socket.send_fds(link, [b"."], list(STREAMS))
            connection = Connection(link.detach())
            connection.send((sys.argv, os.getcwd(), _without_address()))
            copy = connection.recv()
        except (OSError, EOFError):  # a copy says its number before it runs anything of the stage
            print("note: the warm process has ended; this stage starts without it", flush=True)
            return None
    with connection:
        while True:
            try:
                return connection.recv()
            except KeyboardInterrupt:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(copy, signal.SIGINT)
            except (OSError, EOFError):
                return KILLED


def _without_address() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != ADDRESS}


# In the warm process


def serve(listener: socket.socket) -> None:
    """Fork a copy for everyone who asks, until the input ends."""
    for name in PACKAGES:
        with contextlib.suppress(ImportError):  # who needs it says so
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets ended copies
    gc.collect()
    gc.freeze()
    lifeline = sys.stdin.fileno()
    while lifeline not in wait([listener, lifeline]):
        link, _ = listener.accept()
        with link:
            if os.fork() == 0:
                try:
                    listener.close()
                    _become_stage(link)
                finally:  # not into the loop above
                    traceback.print_exc()
                    os._exit(1)


# In a copy


def _become_stage(link: socket.socket) -> None:
    """Run what is asked for, as its own process would, and end."""
    _, numbers, _, _ = socket.recv_fds(link, 1, len(STREAMS))
    for stream, number in zip(STREAMS, numbers, strict=True):
        os.dup2(number, stream)
        os.close(number)
    connection = Connection(link.detach())
    arguments, folder, environment = connection.recv()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()  # a crash is told from a kill by what it prints
    connection.send(os.getpid())
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    status = _execute(arguments)
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            output.flush()
    with contextlib.suppress(OSError):
        connection.send(status)
    os._exit(status)


def _end_with(connection: Connection) -> None:
    """End this copy at once when the process that asked for it has ended."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(KILLED)


def _execute(arguments: list[str]) -> int:
    """Run a script with its arguments; its exit status. Python does the same at the end of a process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "palinode"]:
        del sys.modules[name]
    named = [Path(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:1] = [str(part.absolute()) for part in (Path(arguments[0]).parent, *named)]
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001  what ends a stage must not go on into the warm process's own code
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
