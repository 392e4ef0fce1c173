"""Run a stage's command as a job of a cluster, through submitit, while the stage's own process waits for it here.

DVC's processes stay on one machine, because their locks know process ids only. What travels is the command, in the same
folder, which has to be on a disk that both machines see.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from palinode.core.errors import UserError
from palinode.core.work import Cluster, read_runtime

if TYPE_CHECKING:
    from submitit import Executor, Job
    from submitit.helpers import DelayedSubmission

LAUNCH = "PALINODE_LAUNCH"  # slurm, or local: the same path without a cluster
CLUSTERS = ("slurm", "local")
LOGS = Path("out/logs/cluster")
STAY = ("plan", "bind", "report")  # scripts that only read and write small files, for which a job is not worth it
WARNINGS = (-signal.SIGTERM, -signal.SIGUSR2)  # exit statuses of a stage that died of a signal for its whole job
POLL = 2.0  # seconds between looks at the disk
ASK = 20.0  # seconds between questions to Slurm
GRACE = 60.0  # seconds between a job's leaving the queue and its result's being seen on a shared disk


def is_wanted(script: str) -> bool:
    """Whether this stage is to travel."""
    return is_named() and script not in STAY


def is_named() -> bool:
    """Whether stages are to travel. UserError when they cannot: another name, no submitit, no Slurm."""
    chosen = os.environ.get(LAUNCH, "")
    if not chosen:
        return False
    if chosen not in CLUSTERS:
        raise UserError(f"{LAUNCH}={chosen}: {' or '.join(CLUSTERS)}")
    if importlib.util.find_spec("submitit") is None:
        raise UserError(f"{LAUNCH}={chosen}: submitit is not installed: pip install 'palinode[cluster]'")
    if chosen == "slurm" and shutil.which("sbatch") is None:
        raise UserError(f"{LAUNCH}=slurm: there is no sbatch here")
    return True


def run(name: str) -> None:
    """Run this process's own command line as a job and wait. UserError when the job fails, or cannot be given away.

    A job that is taken from its machine is queued again by Slurm, and its stage continues from its scratch folder.
    """
    note = LOGS / f"{name}.job"
    _end_earlier(note)
    try:
        executor = _open(read_runtime().cluster)
        executor.update_parameters(name=name)
        job = executor.submit(Command([sys.executable, *sys.argv]))
    except RuntimeError as error:  # of submitit, with what sbatch says of a name it does not know
        raise UserError(f"{LAUNCH}: the job was refused: {' '.join(str(error).split())}") from None
    note.write_text(job.job_id, encoding="utf-8")
    print(f"job {job.job_id}: {job.paths.stdout}", flush=True)
    try:
        status = _wait(job)
    except BaseException:
        job.cancel(check=False)
        raise
    finally:
        note.unlink(missing_ok=True)
    _show_output(job)
    if status:
        raise UserError(_find_reason(job, status))


def _open(settings: Cluster) -> "Executor":
    import submitit

    chosen = os.environ[LAUNCH]
    executor = submitit.AutoExecutor(folder=LOGS / "%j", cluster=chosen)
    executor.update_parameters(timeout_min=max(1, round(60 * settings.hours)), cpus_per_task=settings.cores)
    if settings.gpus:
        executor.update_parameters(gpus_per_node=settings.gpus)
    if chosen == "slurm":
        asked = {
            "slurm_mem": f"{round(1024 * settings.memory)}M",
            "slurm_partition": settings.partition,
            "slurm_setup": settings.setup,
        }
        executor.update_parameters(**{name: value for name, value in asked.items() if value})
    return executor


class Command:
    """In the job: the command itself, which must not travel again.

    Slurm warns a job before it takes its machine or its time is over; submitit then asks for the checkpoint and queues
    it again. The stage's own is in its scratch folder, so that the same command continues.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __call__(self) -> int:
        """The exit status. A stage that died of Slurm's warning has none: this process is about to be ended, too."""
        environment = {name: value for name, value in os.environ.items() if name != LAUNCH}
        status = subprocess.run(self.words, env=environment, check=False).returncode
        while status in WARNINGS:
            time.sleep(POLL)
        return status

    def checkpoint(self) -> "DelayedSubmission":
        """The same command once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _end_earlier(note: Path) -> None:
    """End a job of this stage that nobody waits for any more, since two must not write one output."""
    if os.environ[LAUNCH] != "slurm" or not note.exists():
        return
    job = note.read_text(encoding="utf-8")
    subprocess.run(["scancel", job], check=False)
    while _is_queued(job):
        time.sleep(POLL)


def _wait(job: "Job") -> int:
    """The status of the command. UserError when the job has ended without one."""
    if os.environ[LAUNCH] == "slurm":
        _wait_for_result(job)
    try:
        return job.result()
    except RuntimeError as error:  # submitit: the job ended before its command did
        raise UserError(f"job {job.job_id}: {_last_line(str(error))}") from None


def _wait_for_result(job: "Job") -> None:
    """Return when the job has written its result.

    Not by submitit's `done`, which asks for Slurm's accounting, which not every cluster has, and takes a job whose node
    failed as done although Slurm queues it again.
    """
    last_seen = time.monotonic()
    asked = 0.0
    while not job.paths.result_pickle.exists():
        time.sleep(POLL)
        if time.monotonic() - asked < ASK:
            continue
        asked = time.monotonic()
        if _is_queued(job.job_id):
            last_seen = asked
        elif asked - last_seen > GRACE:
            raise UserError(f"job {job.job_id} has left the queue without a result: see {job.paths.stderr}")


def _is_queued(job: str) -> bool:
    """Whether Slurm still knows the job; an answer other than that counts as yes."""
    asked = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    if asked.returncode:
        return "Invalid job id" not in asked.stderr
    return bool(asked.stdout.strip())


def _show_output(job: "Job") -> None:
    for text in (job.stdout(), job.stderr()):
        if text:
            print(text, end="", flush=True)


def _find_reason(job: "Job", status: int) -> str:
    lines = (job.stderr() or "").splitlines()
    own = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if own:
        return own[-1]
    if status == -signal.SIGKILL:
        return f"job {job.job_id} was killed, most likely for want of memory: see runtime.cluster.memory"
    return f"job {job.job_id}: the command ended with status {status}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
