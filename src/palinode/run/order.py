"""Which job is next: a family at a time, in it what others wait for, the cells at hand, new cells; long ones first."""

from collections.abc import Mapping
from functools import cached_property

from palinode.run.jobs import Job
from palinode.run.machine import Slots


class Schedule:
    """The jobs that have not ended, and the order in which they start.

    What serves all families comes first, then the shortest family; the next gets what that leaves idle. In a family a
    cell is finished before another is begun. So the first table is there early. seconds: what each job is expected to
    take.
    """

    def __init__(self, jobs: list[Job], seconds: Mapping[str, float]) -> None:
        self.seconds = seconds
        self.jobs = {job.name: job for job in jobs}
        self.waiting = dict(self.jobs)
        self.running: dict[str, Job] = {}
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()  # what waited for a job that failed
        self._begun: set = set()

    def ready(self) -> list[Job]:
        """Jobs that may start now, the first to start first."""
        free = [job for job in self.waiting.values() if job.upstream <= self.done]
        return sorted(free, key=self._rank)

    def start_ready(self, slots: Slots) -> list[tuple[Job, dict[str, str]]]:
        """Start what fits, with the environment of each. The first that does not fit is waited for."""
        started = []
        for job in self.ready():
            if not slots.fits(job):
                break
            self.running[job.name] = self.waiting.pop(job.name)
            self._begun.add(job.cell)
            started.append((job, slots.take(job)))
        return started

    def end(self, job: Job, ok: bool) -> None:
        """`job` has ended; after a failure its successors are given up, and nothing else."""
        del self.running[job.name]
        if ok:
            self.done.add(job.name)
            return
        self.failed.add(job.name)
        for name in self._successors(job.name):
            if name in self.waiting:
                del self.waiting[name]
                self.skipped.add(name)

    def remaining(self, name: str) -> float:
        """Seconds from the start of a job to the end of the longest chain that waits for it."""
        return self._remaining[name]

    def _rank(self, job: Job) -> tuple:
        begun = 0 if job.cell is None or job.is_reference else 1 if job.cell in self._begun else 2
        family = self._family_seconds[job.family] if job.family else 0.0
        return family, begun, -self.remaining(job.name), job.name

    def _successors(self, name: str) -> set[str]:
        reached = {name}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            below = [job.name for job in self.jobs.values() if current in job.upstream and job.name not in reached]
            reached.update(below)
            waiting += below
        return reached - {name}

    @cached_property
    def _family_seconds(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for job in self.jobs.values():
            totals[job.family] = totals.get(job.family, 0.0) + self.seconds[job.name]
        return totals

    @cached_property
    def _remaining(self) -> dict[str, float]:
        longest: dict[str, float] = {}
        # Jobs come in the graph's order, so what waits for a job stands after it.
        for job in reversed(list(self.jobs.values())):
            below = [longest[other.name] for other in self.jobs.values() if job.name in other.upstream]
            longest[job.name] = self.seconds[job.name] + max(below, default=0.0)
        return longest


def simulate(jobs: list[Job], seconds: Mapping[str, float], slots: Slots) -> float:
    """Seconds that the jobs take."""
    schedule = Schedule(jobs, seconds)
    now = 0.0
    ends: dict[str, float] = {}
    while schedule.waiting or schedule.running:
        for job, _ in schedule.start_ready(slots):
            ends[job.name] = now + seconds[job.name]
        name = min(ends, key=ends.__getitem__)
        now = ends.pop(name)
        slots.give_back(schedule.jobs[name])
        schedule.end(schedule.jobs[name], ok=True)
    return now
