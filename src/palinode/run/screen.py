"""What a run shows while it goes: a live table in a terminal, a line for each stage that ends elsewhere."""

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from palinode.run.jobs import Job
from palinode.run.order import Schedule

FAMILIES = {"": "models and references", "images": "images", "concept": "concepts", "prompts": "memorized prompts"}


class Screen:
    """The state of a run."""

    def __init__(self, schedule: Schedule, workers: int) -> None:
        self.console = Console()
        self._schedule = schedule
        self._workers = workers
        self._since: dict[str, float] = {}
        self._live = Live(console=self.console, get_renderable=self._draw, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def refresh(self) -> None:
        """Draw the table anew."""
        if self.console.is_terminal:
            self._live.refresh()

    def started(self, job: Job) -> None:
        """Remember when."""
        self._since[job.name] = time.monotonic()

    def ended(self, job: Job, reason: str | None) -> None:
        """One line; reason: why it failed."""
        seconds = time.monotonic() - self._since.pop(job.name)
        ended = len(self._schedule.done) + len(self._schedule.failed)
        line = f"[{ended}/{len(self._schedule.jobs)}] {job.name} {seconds:.0f} s, {self._time_left()} left"
        if reason is not None:
            line = f"failed: {job.name}: {reason}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _time_left(self) -> str:
        """Waiting and running work, shared by all workers; at least the longest chain."""
        schedule = self._schedule
        now = time.monotonic()
        running = {
            name: max(0.0, schedule.seconds[name] - (now - self._since.get(name, now))) for name in schedule.running
        }
        work = sum(running.values()) + sum(schedule.seconds[name] for name in schedule.waiting)
        chains = [schedule.remaining(name) for name in schedule.waiting]
        seconds = max([work / self._workers, *running.values(), *chains])
        return show_time(seconds)

    def _draw(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("", "done", "running", "waiting", "failed"):
            table.add_column(heading, justify="left" if not heading else "right")
        schedule = self._schedule
        states = (schedule.done, schedule.running, schedule.waiting, schedule.failed | schedule.skipped)
        counts = [Counter(schedule.jobs[name].family for name in names) for names in states]
        for family in {job.family: None for job in schedule.jobs.values()}:
            table.add_row(FAMILIES[family], *(str(count[family]) for count in counts))
        now = time.monotonic()
        lines = [
            Text(f"  {name}  {now - since:.0f} of about {schedule.seconds[name]:.0f} s")
            for name, since in self._since.items()
        ]
        return Group(table, *lines, Text(f"about {self._time_left()} left"))


def show_time(seconds: float) -> str:
    """`40 s`, or whole minutes above one."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
