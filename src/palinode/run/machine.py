"""What stages that run side by side share of a machine, from JOBS, GPUS and `runtime.device`."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field

from palinode.core.errors import UserError
from palinode.run.jobs import Job


@dataclass
class Slots:
    """What jobs share: cores, of which a job takes as many as it has threads; or places, one a job.

    gpus: the places are these GPUs; elsewhere: they are on a cluster.
    """

    count: int
    gpus: tuple[str, ...] = ()
    elsewhere: bool = False
    _taken: dict[str, int] = field(default_factory=dict)
    _leased: dict[str, str] = field(default_factory=dict)

    def fits(self, job: Job) -> bool:
        """Whether the job may start now."""
        return self._width(job) <= self.count - sum(self._taken.values())

    def take(self, job: Job) -> dict[str, str]:
        """Give the job its share; the environment that says so to its process."""
        self._taken[job.name] = self._width(job)
        if not self.gpus:
            return {}
        gpu = next(gpu for gpu in self.gpus if gpu not in self._leased.values())
        self._leased[job.name] = gpu
        # The driver's numbers are those of the bus; CUDA's own order is by speed.
        return {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    def give_back(self, job: Job) -> None:
        """The job has ended."""
        del self._taken[job.name]
        self._leased.pop(job.name, None)

    def _width(self, job: Job) -> int:
        return 1 if self.gpus or self.elsewhere else min(job.threads, self.count)


def share(jobs: str | None, gpus: str | None, device: str) -> Slots:
    """The slots of a run; None: all cores, all GPUs. UserError for a number that is none, or a GPU that is not there.

    device: as in `runtime.device`. `cpu` leaves the GPUs alone; `cuda:1` is one GPU, which one stage uses at a time.
    """
    most = None if jobs is None else read_number(jobs)
    there = _list_gpus() if device in ("auto", "cuda") else []
    chosen = there if gpus is None else _choose(gpus, there, device)
    if device.startswith("cuda:"):
        return Slots(1)
    if chosen:
        chosen = chosen[:most]
        return Slots(len(chosen), tuple(chosen))
    return Slots(most or _count_cores())


def read_number(jobs: str) -> int:
    """JOBS as a number. UserError when it is none, or 0."""
    if not jobs.isdecimal() or int(jobs) == 0:
        raise UserError(f"JOBS={jobs}: the number of stages to run at once, 1 or more")
    return int(jobs)


def _choose(gpus: str, there: list[str], device: str) -> list[str]:
    chosen = list(dict.fromkeys(gpu.strip() for gpu in gpus.split(",")))
    for gpu in chosen:
        if gpu not in there:
            raise UserError(f"GPUS={gpus}: no GPU {gpu!r} here, there {_say(there)} (runtime.device: {device})")
    return chosen


def _count_cores() -> int:
    """Those that this process may use, which a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _list_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, or all that the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
        return [] if any(gpu.startswith("-") for gpu in listed) else listed
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.split() if asked.returncode == 0 else []


def _say(gpus: list[str]) -> str:
    if not gpus:
        return "are none"
    return f"is {gpus[0]}" if len(gpus) == 1 else f"are {', '.join(gpus)}"
