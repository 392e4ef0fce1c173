"""Several processes that share the chunks of one sampling run."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from palinode.core.errors import UserError
from palinode.core.scratch import Scratch

SHARDS = "PALINODE_SHARDS"  # set for the worker processes: the scratch folder that takes their chunks


def launch(scratch: Scratch, processes: int) -> None:
    """Let that many copies of this script make the chunks first; nothing for one process.

    torch's launcher starts them; it tells each its number by RANK, LOCAL_RANK and WORLD_SIZE.
    """
    if processes == 1:
        return
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {SHARDS: str(scratch.folder)}
    finished = subprocess.run([*launcher, *sys.argv], env=environment, check=False)
    if finished.returncode:
        raise UserError(f"a sampling process ended with status {finished.returncode}")


def shared_folder() -> Path | None:
    """The scratch folder that takes this process's chunks; None in a process that `launch` did not start."""
    return Path(os.environ[SHARDS]) if SHARDS in os.environ else None


def own_device(device: torch.device) -> torch.device:
    """The device of this worker: the one named, such as `cuda:1`; of `cuda` its own of the GPUs that can be seen."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def own_share(threads: int) -> slice:
    """Which chunks are this worker's: every processes-th one."""
    torch.set_num_threads(threads)  # the launcher changes it, and the bytes may depend on it
    return slice(int(os.environ["RANK"]), None, int(os.environ["WORLD_SIZE"]))
