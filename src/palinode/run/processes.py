"""Processes that run one stage each, through DVC, with what they print in a file of their own."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import psutil

from palinode.pipeline.cluster import STAY
from palinode.pipeline.warm import ADDRESS, WarmProcess
from palinode.run.jobs import Job

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LOGS = Path("out/logs")
RECORD = LOGS / "run.jsonl"
PATIENCE = 10.0  # seconds that a stage has to end by itself before it is killed
LOOK = 0.2  # seconds between looks for a stage that has to end


class Processes:
    """The processes at work. DVC is imported once, by the server that they are forked from.

    warm: whether their stages are copies of a warm process, which starts when the first of them needs it.
    """

    def __init__(self, force: bool = False, warm: bool = False) -> None:
        self._force = force
        self._warm = warm
        self._warm_process: WarmProcess | None = None
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "dvc.cli", "dvc.commands.repro", "dvc.repo.reproduce"])
        self._at_work: dict[str, tuple[Job, BaseProcess]] = {}
        LOGS.mkdir(parents=True, exist_ok=True)
        RECORD.unlink(missing_ok=True)

    def start(self, job: Job, environment: dict[str, str]) -> None:
        """Run the job in a process of its own."""
        if self._warm and job.group not in STAY:
            self._warm_process = self._warm_process or WarmProcess(LOGS / "warm.log")
            environment = environment | {ADDRESS: self._warm_process.address}
        arguments = (job.name, str(log_of(job.name)), environment, self._force)
        process = self._context.Process(target=_reproduce, args=arguments, name=job.name)
        process.start()
        self._at_work[job.name] = (job, process)

    def wait(self, seconds: float) -> list[tuple[Job, int]]:
        """The jobs that have ended meanwhile, each with its exit status; waits no longer than `seconds`."""
        wait([process.sentinel for _, process in self._at_work.values()], seconds)
        ended = []
        for name, (job, process) in list(self._at_work.items()):
            if process.exitcode is not None:
                process.join()
                del self._at_work[name]
                ended.append((job, process.exitcode))
        return ended

    def stop(self) -> None:
        """End all processes: they are asked to, and killed when they do not."""
        processes = [process for _, process in self._at_work.values()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                _signal(process, number)
            end = time.monotonic() + PATIENCE
            for process in processes:
                process.join(max(0.0, end - time.monotonic()))
        self._at_work.clear()
        if self._warm_process is not None:
            self._warm_process.stop()


def log_of(name: str) -> Path:
    """The file that holds what a job printed."""
    return LOGS / f"{name}.log"


def _signal(process: "BaseProcess", number: signal.Signals) -> None:
    """Asked to end, a job ends its stage itself; to kill it, its whole group is killed."""
    if process.pid is None or process.exitcode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGTERM:
            os.kill(process.pid, number)
        else:
            os.killpg(process.pid, number)


# In the job's process


def _reproduce(name: str, log: str, environment: dict[str, str], force: bool) -> None:
    """`dvc repro` of one stage, in a group of processes that ends with the launcher."""
    os.setsid()
    with open(log, "wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, _interrupt)  # not SIGINT, which DVC ignores while a command runs
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    from dvc.cli import main

    begin = time.time()
    arguments = ["--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), name]
    status = main(arguments)
    _record(name, begin, status)
    sys.exit(status)


def _record(name: str, begin: float, status: int) -> None:
    """Note when the job ran and what DVC took of the processors; benchmarks/parallel.py reads it."""
    times = os.times()
    cpu = times.user + times.system
    entry = {"stage": name, "begin": begin, "seconds": time.time() - begin, "cpu": cpu, "status": status}
    with open(RECORD, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _interrupt(number: int, frame: FrameType | None) -> None:
    threading.Thread(target=_end_stage, daemon=True).start()


def _end_stage() -> None:
    """Interrupt the stage's command, now or when it starts, and never DVC, which may be writing its lock."""
    asked: set[int] = set()
    while True:
        for child in psutil.Process().children(recursive=True):
            if child.pid not in asked:
                asked.add(child.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGINT)
        time.sleep(LOOK)


def _end_with_launcher() -> None:
    """A launcher that was killed cannot end its jobs, so they watch it."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    launcher.join()
    threading.Thread(target=_end_stage, daemon=True).start()
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)
