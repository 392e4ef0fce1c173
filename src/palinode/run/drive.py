"""Run jobs side by side until all have ended, whatever becomes of each."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from palinode.params import KINDS
from palinode.pipeline import warm
from palinode.run import costs, failures
from palinode.run.jobs import Job
from palinode.run.machine import Slots
from palinode.run.order import Schedule
from palinode.run.processes import Processes, log_of
from palinode.run.screen import Screen, show_time


def run_jobs(jobs: list[Job], slots: Slots, force: bool) -> bool:
    """Run them all; False when one failed. Its successors are not run, all others are; the end lists every failure."""
    expected = {name: cost.seconds for name, cost in costs.estimate(jobs).items()}
    schedule = Schedule(jobs, expected)
    processes = Processes(force, warm.is_possible() and not slots.elsewhere)
    reasons: dict[str, str] = {}
    shown: set[str] = set()
    begin = time.monotonic()
    try:
        with Screen(schedule, slots.count) as screen:
            while schedule.waiting or schedule.running:
                for job, environment in schedule.start_ready(slots):
                    processes.start(job, environment)
                    screen.started(job)
                screen.refresh()
                for job, status in processes.wait(seconds=1.0):
                    slots.give_back(job)
                    schedule.end(job, ok=status == 0)
                    if status:
                        reasons[job.name] = failures.explain(job.name, status)
                    screen.ended(job, reasons.get(job.name))
                    show_table(job, schedule, screen, shown)
    except KeyboardInterrupt:
        print("ending the stages that run", file=sys.stderr)
        raise
    finally:
        processes.stop()
    if len(jobs) > 1:
        print(f"{len(schedule.done)} stages in {show_time(time.monotonic() - begin)}")
    for name, reason in reasons.items():
        print(f"error: {name}: {reason} (see {log_of(name)})", file=sys.stderr)
    if schedule.skipped:
        print(f"not run, because they wait for what failed: {', '.join(sorted(schedule.skipped))}", file=sys.stderr)
    return not reasons


def show_tables(console: Console, *kinds: str, unfinished: Iterable[Path] = ()) -> None:
    """Print the headline tables of these kinds of tasks, of all without any. A process of its own makes them.

    unfinished: folders of the cells whose rows are left out.
    """
    command = [sys.executable, "-m", "palinode.report.terminal", *kinds, *map(str, unfinished)]
    environment = os.environ | {"COLUMNS": str(console.width)}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        console.print(f"note: no table: {made.stderr.strip().splitlines()[-1]}", markup=False)
    else:
        console.print(made.stdout, markup=False, highlight=False, soft_wrap=True)


def show_table(job: Job, schedule: Schedule, screen: Screen, shown: set[str]) -> None:
    """A job has ended: show its family's table as soon as the references and a row are there, and when all are.

    shown: the families of which a table was shown.
    """
    if job.family not in KINDS or "report" not in schedule.waiting:
        return
    family = [other for other in schedule.jobs.values() if other.family == job.family]
    left = [other for other in family if other.name not in schedule.done]
    finished = {other.row for other in family if other.row} - {other.row for other in left}
    is_first = bool(finished) and job.family not in shown and not any(other.is_reference for other in left)
    if is_first or not left:
        shown.add(job.family)
        show_tables(screen.console, job.family, unfinished={other.cell for other in left if other.cell})
