"""A concept task's part on second opinions: forgetting by two judges, integrity by two networks.

Judges look at the same pictures. They differ where the 95 % interval of the paired difference leaves out 0. Networks
have scales of their own, so their integrities are shown side by side, without such a mark.
"""

from dataclasses import dataclass

import numpy as np

from palinode.core.estimate import LEVEL
from palinode.metrics import registry
from palinode.metrics.registry import PROMPT_SETS
from palinode.report.averages import Estimate
from palinode.report.collect import Row, Task
from palinode.report.tables import has_erased, show

SECOND_NETWORK = "efficientnet_lite0"
DIFFER = "≠"


@dataclass(frozen=True)
class Opinions:
    """heads: prompt sets; rows: of texts, a row's name first."""

    heads: list[str]
    rows: list[list[str]]


def view(task: Task) -> dict[str, Opinions | None] | None:
    """What the template shows of a concept task with two judges, or with two networks; None of another."""
    parts = {"judges": compare_judges(task), "networks": compare_networks(task)}
    return parts if any(parts.values()) else None


def compare_judges(task: Task) -> Opinions | None:
    """Of every row and forget set: UA by the first and by the second judge, and how often they agree."""
    sets = [name for name in PROMPT_SETS if measured(task, f"ua_{name}", f"ua_{name}_second")]
    return _gather(sets, [[row.name, *(show_judges(row, name) for name in sets)] for row in task.rows])


def compare_networks(task: Task) -> Opinions | None:
    """Of every unlearned row that erased and every retained set: integrity by the judge and by the second network."""
    names = {name: (f"integrity_{name}_judge", f"integrity_{name}_{SECOND_NETWORK}") for name in PROMPT_SETS}
    sets = [name for name in PROMPT_SETS if measured(task, *names[name])]
    rows = []
    for row in task.unlearned:
        pairs = [names[name] for name in sets]
        cells = [show_pair(row, *pair) if has_erased(row) else "did not erase" for pair in pairs]
        rows.append([row.name, *cells])
    return _gather(sets, rows)


def show_pair(row: Row, first: str, second: str) -> str:
    """Both values; a dash where one is absent."""
    shown = []
    for metric in (first, second):
        value = row.estimate(metric).value
        if value is None:
            return "–"
        shown.append(show(value, registry.lookup(metric)))
    return " / ".join(shown)


def show_judges(row: Row, prompts: str) -> str:
    """UA on a prompt set by both judges, a mark where they differ, and in brackets the share on which they agree."""
    first, second, agree = (f"ua_{prompts}", f"ua_{prompts}_second", f"judges_agree_{prompts}")
    text = show_pair(row, first, second)
    if text == "–":
        return text
    mark = f" {DIFFER}" if differ(row.estimate(first), row.estimate(second)) else ""
    return f"{text}{mark} ({show(row.estimate(agree).value, registry.lookup(agree))})"


def differ(first: Estimate, second: Estimate) -> bool:
    """Whether the paired difference of two estimates is not 0; False without replicates."""
    if first.replicates is None or second.replicates is None:
        return False
    low, high = np.quantile(first.replicates - second.replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return bool(low > 0 or high < 0)  # no where a resample has none


def measured(task: Task, *metrics: str) -> bool:
    """Whether some row has a value of each."""
    return all(any(row.estimate(metric).value is not None for row in task.rows) for metric in metrics)


def _gather(sets: list[str], rows: list[list[str]]) -> Opinions | None:
    return Opinions([PROMPT_SETS[name] for name in sets], rows) if sets else None
