"""Evaluate the claims of `reference/*.yaml` on this run, by paired bootstrap.

A claim's `check` (see `palinode.report.expressions`) is evaluated once per bootstrap replicate. Replicates are paired
across rows, so a difference of two rows keeps their correlation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palinode.report.averages import Estimate
from palinode.report.collect import Task
from palinode.report.expressions import parse
from palinode.report.reference_tables import find_paper_value, match_rows, read_mapping, read_tables

HOLDS = 0.95  # share of replicates from which on a claim holds
FAILS = 0.05  # and up to which it fails
BUILT = "by construction"  # true whatever the run gave: it follows from how the methods are built
VERDICTS = ("holds", "fails", "undecided", BUILT, "untested")


@dataclass(frozen=True)
class Quantity:
    """One reference of a claim: this run's estimate beside the paper's number."""

    reference: str
    ours: Estimate
    paper: float | None


@dataclass(frozen=True)
class Result:
    """A claim's outcome. `share` of replicates in which it is true and `point` (true at the estimates) if tested."""

    claim: dict
    table: dict
    task: str
    verdict: str
    reason: str = ""
    share: float | None = None
    point: bool | None = None
    quantities: tuple[Quantity, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether the verdict is the one the table's own rows give; None if one of the two is open."""
        expected = self.claim["holds_on_rows"]
        if expected is None or self.verdict not in ("holds", "fails"):
            return None
        return expected == (self.verdict == "holds")


def evaluate(tasks: list[Task], folder: Path) -> list[Result]:
    """Every claim of every table, on each task that the mapping gives the table; untested with its reason else."""
    mapping = read_mapping(folder)
    results = []
    for table in read_tables(folder):
        fitting = [task for task in tasks if table["id"] in mapping["tasks"].get(task.name, {})]
        reason = mapping["out_of_scope"].get(table["id"], "no task of this run produces this table's numbers")
        for claim in table["claims"]:
            results += [assess(task, mapping, table, claim) for task in fitting]
            if not fitting:
                results.append(Result(claim, table, "", "untested", reason))
    return results


def assess(task: Task, mapping: dict, table: dict, claim: dict) -> Result:
    """Test one claim on one task's cells. An exact count (interval `none`) is the same in every replicate."""
    check = parse(claim["check"], claim["id"])
    metrics = mapping["tasks"][task.name][table["id"]]
    quantities = tuple(
        Quantity(reference, find_estimate(task, mapping, metrics, reference), find_paper_value(table, reference))
        for reference in check.references
    )
    reason = list_missing(quantities) or find_unmet(task, mapping, metrics, claim)
    if reason:
        return Result(claim, table, task.name, "untested", reason, quantities=quantities)
    values = {item.reference: item.ours.value for item in quantities}
    drawn = {item.reference: item.ours.replicates for item in quantities if item.ours.replicates is not None}
    point = bool(check.evaluate(values))
    if point and claim.get("by_construction", False):
        return Result(claim, table, task.name, BUILT, "no test of the run", point=point, quantities=quantities)
    length = min((len(replicates) for replicates in drawn.values()), default=1)  # counts have a length of their own
    drawn = {reference: replicates[:length] for reference, replicates in drawn.items()}
    share = float(np.mean(check.evaluate(values | drawn)))
    return Result(claim, table, task.name, judge(share), share=share, point=point, quantities=quantities)


def judge(share: float) -> str:
    """The verdict for a share of true replicates."""
    if share >= HOLDS:
        return "holds"
    return "fails" if share <= FAILS else "undecided"


def find_estimate(task: Task, mapping: dict, metrics: dict, reference: str) -> Estimate:
    """This run's estimate for a claim's reference; with a reason in place of a value if it cannot serve."""
    paper_row, metric = reference.rsplit(".", 1)
    rows = match_rows(task, mapping)
    if paper_row not in rows:
        return Estimate(reason=f"no row of this run stands for {paper_row}")
    if metric not in metrics:
        return Estimate(reason=f"no metric of ours stands for {metric}")
    estimate = task.row(rows[paper_row]).estimate(metrics[metric]["ours"])
    least = metrics[metric].get("min_n", 0)
    if estimate.value is None:
        return estimate
    if estimate.samples < least:
        return Estimate(reason=f"{estimate.samples} samples, at least {least} needed: {metrics[metric]['why']}")
    if estimate.replicates is None:
        return estimate if estimate.interval == "none" else Estimate(reason="no bootstrap replicates")
    if np.isnan(estimate.replicates).any():
        return Estimate(reason="undefined in some bootstrap replicates")
    return estimate


def list_missing(quantities: tuple[Quantity, ...]) -> str:
    """Which quantities have no value, by reason; empty if all have one."""
    reasons: dict[str, list[str]] = {}
    for item in quantities:
        if item.ours.value is None:
            reasons.setdefault(item.ours.reason, []).append(item.reference)
    return "; ".join(f"{', '.join(references)}: {reason}" for reason, references in reasons.items())


def find_unmet(task: Task, mapping: dict, metrics: dict, claim: dict) -> str:
    """Why a claim that `requires` something does not apply; empty if it does."""
    if "requires" not in claim:
        return ""
    needed = parse(claim["requires"], claim["id"])
    values = {name: find_estimate(task, mapping, metrics, name).value for name in needed.references}
    if None not in values.values() and needed.evaluate(values):
        return ""
    texts = {name: "absent" if value is None else f"{value:.3g}" for name, value in values.items()}
    here = ", ".join(f"{name} = {text}" for name, text in texts.items())
    return f"it applies only where {claim['requires']}; here {here}"
