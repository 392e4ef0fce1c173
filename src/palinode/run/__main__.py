"""Run the graph with its stages side by side: `python -m palinode.run`, which `make repro` and `make exp` call."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from rich.console import Console

from palinode import params
from palinode.core.errors import UserError
from palinode.pipeline import cluster
from palinode.run import costs, drive, experiment, jobs, leftovers, machine
from palinode.run.jobs import Job
from palinode.run.machine import Slots
from palinode.run.order import simulate
from palinode.run.screen import show_time

LOCK = Path(".dvc/tmp/palinode-run.lock")
PLAN = "plan"  # the stage that says what the others do
BASE_DATA = "prepare-base"  # the stages that put the data of base models in place


def main() -> None:
    """Parse the command line, run, and end with one line and status 1 where something failed."""
    options = _parse()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(run(options))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues from here")


def run(options: argparse.Namespace) -> int:
    """The exit status: 0 when all is done, 1 when a stage failed."""
    if options.set and options.dry_run:
        raise UserError("-S changes params.yaml, and --dry-run changes nothing: use one of them")
    with _only_launcher():
        if options.set:
            experiment.set_parameters(options.set)
        slots = _find_slots(options)
        ended = _run_stale(options, slots)
        if ended and (options.experiment or options.name):
            experiment.save(options.name)
    return 0 if ended else 1


def _find_slots(options: argparse.Namespace) -> Slots:
    if not cluster.is_named():
        return machine.share(options.jobs, options.gpus, params.load(Path("params.yaml")).runtime.device)
    if options.jobs is None:
        raise UserError(f"{cluster.LAUNCH}: say how many jobs the cluster may get at once, as in JOBS=16")
    return Slots(machine.read_number(options.jobs), elsewhere=True)


def _run_stale(options: argparse.Namespace, slots: Slots) -> bool:
    """Run what has changed; False when a stage failed."""
    repository = jobs.open_repository()
    planning = jobs.list_stale(repository, [PLAN])
    if planning:
        if not drive.run_jobs(planning, slots, force=False):
            return False
        repository = jobs.open_repository()  # what else has changed is known only now
    stale = jobs.list_stale(repository, options.targets, options.force, left_out=[PLAN])
    if options.dry_run:
        _show_costs(stale, slots)
        return True
    if not stale:
        print("nothing to do: every stage is up to date")
        return True
    data = [job for job in stale if job.group == BASE_DATA and not options.force]
    if data and drive.run_jobs(data, slots, force=False):
        # Where git holds the models that were trained on these data, most often nothing has changed for them.
        stale = jobs.list_stale(jobs.open_repository(), options.targets, left_out=[PLAN])
    if stale and not drive.run_jobs(stale, slots, options.force):
        return False
    left = jobs.list_stale(jobs.open_repository(), options.targets)
    if left:
        raise UserError(f"{left[0].name} changed while this ran: the same command continues from here")
    if not options.targets:
        drive.show_tables(Console())
        print(f"the report: {Path('report/index.html').absolute()}")
    return True


def _show_costs(stale: list[Job], slots: Slots) -> None:
    """What would run, and what it is expected to take here and on other numbers of workers."""
    known = costs.estimate(stale)
    for job in stale:
        cost = known[job.name]
        memory = "memory unknown" if cost.gib is None else f"{cost.gib:.1f} GiB"
        guessed = "" if cost.measured else ", guessed from others of its kind" if cost.gib else ", a mere guess"
        print(f"{job.name}: {show_time(cost.seconds)}, {memory}{guessed}")
    seconds = {name: cost.seconds for name, cost in known.items()}
    print(f"{len(stale)} stages, {show_time(sum(seconds.values()))} one after the other")
    for workers in sorted({1, 2, 4, 8, slots.count}):
        print(f"  {workers} at once: {show_time(simulate(stale, seconds, Slots(workers)))}")


@contextlib.contextmanager
def _only_launcher() -> Iterator[None]:
    """The folder is this launcher's. UserError when another one, or a DVC process, is at work in it."""
    if not LOCK.parent.parent.exists():
        raise UserError("no .dvc folder: run from the repository's root")
    lock = FileLock(LOCK)
    try:
        LOCK.parent.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError("another `make repro` runs in this folder: wait for it to end") from None
    except OSError as error:
        raise UserError(f"{LOCK.parent} cannot be written: {error.strerror}") from None
    try:
        leftovers.clear()
        yield
    finally:
        lock.release()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m palinode.run", description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages to run with all that they need; all by default")
    parser.add_argument("--jobs", default=os.environ.get("JOBS") or None, help="stages at once (JOBS); all cores")
    parser.add_argument("--gpus", default=os.environ.get("GPUS") or None, help="GPUs to use, as 0,1 (GPUS); all")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, with its expected cost")
    parser.add_argument("-f", "--force", action="store_true", help="run stages that have not changed, too")
    parser.add_argument("-S", "--set", action="append", metavar="NAME=VALUE", help="set a parameter in params.yaml")
    parser.add_argument("--experiment", action="store_true", help="record the run as an experiment of DVC")
    parser.add_argument("-n", "--name", help="the name of the experiment")
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
