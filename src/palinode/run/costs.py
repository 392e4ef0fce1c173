"""What jobs are expected to take: from the log of earlier runs here, else from the run that is kept with the code."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from palinode.core.io import read_json
from palinode.pipeline.stage import LOG
from palinode.run.jobs import Job, group_of

SHIPPED = Path("benchmarks/stage_times.json")
UNKNOWN = 30.0  # seconds, for a stage of which nothing is known


@dataclass(frozen=True)
class Cost:
    """seconds: wall time; gib: peak memory; measured: False when it is taken from other stages of its group."""

    seconds: float
    gib: float | None
    measured: bool


def estimate(jobs: Iterable[Job]) -> dict[str, Cost]:
    """The cost of every job, by its name."""
    known = read_known()
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, cost in known.items():
        groups.setdefault(group_of(name), []).append(cost)
    return {job.name: _estimate(job.name, known, groups.get(group_of(job.name), [])) for job in jobs}


def _estimate(name: str, known: dict[str, tuple[float, float]], group: list[tuple[float, float]]) -> Cost:
    if name in known:
        return Cost(*known[name], measured=True)
    if not group:
        return Cost(UNKNOWN, None, measured=False)
    seconds = sum(cost[0] for cost in group) / len(group)
    return Cost(seconds, max(cost[1] for cost in group), measured=False)


def read_known() -> dict[str, tuple[float, float]]:
    """(seconds, GiB) of each stage; the latest run here counts."""
    known: dict[str, tuple[float, float]] = {}
    if SHIPPED.exists():
        known = {name: (cost[0], cost[1]) for name, cost in read_json(SHIPPED)["stages"].items()}
    if LOG.exists():
        for line in LOG.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                known[entry["stage"]] = (float(entry["seconds"]), float(entry["GiB"]))
            except (ValueError, KeyError, TypeError):  # a line that a killed process left unfinished
                continue
    return known
