"""Read the evaluated cells of a run into one table: per seed, and over seeds.

Settings are those of `out/plan/report.json`; the order of tasks and rows is the order shown:

    {"seeds": [0], "families": {"tshirt": "data"},
     "tasks": {"tshirt": {"siss-05": {"method": "siss", "paper": "siss_0.5" or null, "options": {...},
                                      "training": {"lr": 2e-4, "steps": 150, "batch": 64, "accumulate": 1, ...}}}},
     "attacked": [["mnist-zero", "salun", ["relearn", "prefix"]]]}
"""

import csv
import io as textio
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from palinode import io, seeds
from palinode.errors import UserError
from palinode.metrics.record import t_interval, wilson

REFERENCE_ROWS = {"data": ("real", "base", "oracle"),  # family -> the scale its rows are read on; always seed 0
                  "concept": ("base", "oracle", "other"), "prompts": ("base", "mitigated")}
HEADLINE = {"data": ("inception_score_judge", "nll_forget", "eps_error_forget", "forget_rate", "kid_judge",
                     "denoise_similarity_judge", "integrity_judge", "oracle_similarity_judge"),
            "concept": ("ua_t0", "ua_t1", "ua_t2", "ua_t3", "ua_t4", "ua_gap", "right_anchor", "right_near",
                        "right_far", "right_other_domain", "integrity_near_judge", "integrity_far_judge",
                        "fid_kept_judge"),
            "prompts": ("success_modified", "success_original", "memorised_modified", "memorised_original",
                        "copies_modified", "copies_original", "sscd_copies_modified", "sscd_copies_original",
                        "realism_modified_judge", "realism_original_judge", "noise_norm_original",
                        "integrity_ordinary_judge", "copies_others", "in_turn_memorised_original",
                        "in_turn_integrity_ordinary_judge")}
FIELDS = ("family", "task", "method", "seed", "metric", "value", "lo", "hi", "n", "interval", "reason")


@dataclass(frozen=True)
class Estimate:
    """A metric of one row. `value` is None exactly when `reason` says why; `replicates` [R] or None if it has none."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    interval: str = "none"
    reason: str = ""
    direction: str = "none"
    samples: int = 0  # of one seed, while `n` counts seeds where the interval is over seeds
    replicates: np.ndarray | None = None


@dataclass(frozen=True)
class Cell:
    """One (row, seed): its folder, its metrics and bootstrap replicates, or the reason for its absence."""

    seed: int
    folder: Path
    metrics: dict[str, dict] = field(default_factory=dict)
    replicates: dict[str, np.ndarray] = field(default_factory=dict)
    absent: str = ""

    def estimate(self, metric: str) -> Estimate:
        if self.absent or metric not in self.metrics:
            return Estimate(reason=self.absent or "not measured on this row")
        entry = self.metrics[metric]
        if entry["value"] is None:
            return Estimate(reason=entry["reason"], direction=entry["direction"])
        if not math.isfinite(entry["value"]):
            return Estimate(reason=f"the value is {entry['value']}", direction=entry["direction"])
        return Estimate(entry["value"], entry["lo"], entry["hi"], entry["n"], entry["interval"], "",
                        entry["direction"], entry["n"], self.replicates.get(metric))


@dataclass(frozen=True)
class Row:
    """All seeds of one row. `settings` is empty for a reference row."""

    name: str
    cells: list[Cell]
    settings: dict = field(default_factory=dict)

    @property
    def reference(self) -> bool:
        return not self.settings

    def estimate(self, metric: str) -> Estimate:
        """One seed: its own interval. Several: mean with a 95 % t interval over seeds; absent if one seed is.

        For a rate it is widened to Wilson's for the pictures of one seed: all seeds draw from the same noise, so that
        more seeds are not more pictures, and seeds that agree would make an interval of no width.
        """
        parts = [cell.estimate(metric) for cell in self.cells]
        if len(parts) == 1:
            return parts[0]
        for cell, part in zip(self.cells, parts, strict=True):
            if part.value is None:
                return Estimate(reason=f"seed {cell.seed}: {part.reason}", direction=part.direction)
        if len({part.value for part in parts}) == 1 and {part.interval for part in parts} == {"none"}:
            return parts[0]  # an exact count, the same for every seed
        replicates = combine_replicates([part.replicates for part in parts])
        kind, samples = "t", min(part.samples for part in parts)
        mean, lo, hi = t_interval([part.value for part in parts])
        if {part.interval for part in parts} == {"wilson"}:
            low, high = wilson(mean, samples)
            kind, lo, hi = "wilson-t", max(0.0, min(lo, low)), min(1.0, max(hi, high))
        return Estimate(mean, lo, hi, len(parts), kind, "", parts[0].direction, samples, replicates)


@dataclass(frozen=True)
class Task:
    """One task of the run: reference rows first, then the unlearning rows in the order of the settings."""

    name: str
    family: str
    seeds: list[int]
    rows: list[Row]
    root: Path

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for cell in row.cells for name in cell.metrics))

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def combine_replicates(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """Replicates over seeds: replicate b resamples the S seeds and averages their b-th replicates -> [R].

    The drawn seeds depend on S and b only, so they are the same for every row and the pairing of rows survives.
    """
    if any(part is None for part in parts):
        return None
    stacked = np.stack(parts)  # [S, R]
    count, replicates = stacked.shape
    rng = np.random.Generator(np.random.PCG64(seeds.derive("bootstrap-seeds", count)))
    drawn = rng.integers(count, size=(count, replicates))
    return np.take_along_axis(stacked, drawn, axis=0).mean(axis=0)


def read_cell(folder: Path, seed: int, attacks: list[str]) -> Cell:
    """Read a cell's evaluation and attacks; an `absent.txt` in `evaluation/` or `samples/` makes it an absent cell."""
    for part in ("evaluation", "samples"):
        note = folder / part / "absent.txt"
        if note.exists():
            return Cell(seed, folder, absent=note.read_text(encoding="utf-8").strip())
    entries, replicates = {}, {}
    for part in ("evaluation", *(f"robustness/{attack}" for attack in attacks)):
        paths = [folder / part / name for name in ("metrics.json", "replicates.npz")]
        for path in paths:
            if not path.exists():
                raise UserError(f"cell {folder} is not evaluated: {path} is missing")
        with np.load(paths[1], allow_pickle=False) as archive:
            replicates |= {name: archive[name] for name in archive.files}
        entries |= io.read_json(paths[0])
    return Cell(seed, folder, entries, replicates)


def add_cost(cell: Cell, settings: dict) -> None:
    """Add passes per sample of an optimiser step, in forward passes F, a backward counted as 2 F."""
    names = ("forward_passes", "backward_passes")
    passes = [cell.estimate(name).value for name in names]
    training = settings["training"]
    seen = training["steps"] * training["batch"] * training["accumulate"]
    if None in passes or not seen:
        return
    forwards, backwards = (value / seen for value in passes)
    derived = {"forwards_per_sample": forwards, "backwards_per_sample": backwards,
               "cost_per_sample": forwards + 2 * backwards}
    for name, value in derived.items():
        cell.metrics[name] = {"value": value, "lo": None, "hi": None, "n": seen, "unit": "passes",
                              "direction": "down", "interval": "none"}


def collect(settings: dict, root: Path = Path(".")) -> list[Task]:
    """Read every cell the settings name, under `root/out/cells`. A missing cell is a UserError that names it."""
    tasks, attacks = [], attacked(settings)
    for task, wanted in settings["tasks"].items():
        cells = root / "out" / "cells" / task
        family = settings["families"][task]
        rows = [Row(name, [read_cell(cells / name / "0", 0, attacks[task, name])]) for name in REFERENCE_ROWS[family]]
        for name, row in wanted.items():
            read = [read_cell(cells / name / str(seed), seed, attacks[task, name]) for seed in settings["seeds"]]
            for cell in read:
                add_cost(cell, row)
            rows.append(Row(name, read, row))
        tasks.append(Task(task, family, settings["seeds"], rows, root))
    return tasks


def attacked(settings: dict) -> dict[tuple[str, str], list[str]]:
    """(task, row) -> the attacks on its cells; none for any other."""
    return defaultdict(list, {(task, row): attacks for task, row, attacks in settings.get("attacked", [])})


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def tidy(tasks: list[Task]) -> list[dict[str, str]]:
    """One record per (task, row, seed, metric), then one with seed `all`; `n` counts seeds if its interval does."""
    records = []
    for task in tasks:
        for row in task.rows:
            for metric in task.metrics:
                if not any(cell.absent or metric in cell.metrics for cell in row.cells):
                    continue
                estimates = [(str(cell.seed), cell.estimate(metric)) for cell in row.cells]
                for seed, item in [*estimates, ("all", row.estimate(metric))]:
                    values = (task.family, task.name, row.name, seed, metric, number(item.value), number(item.lo),
                              number(item.hi), str(item.n), item.interval, item.reason)
                    records.append(dict(zip(FIELDS, values, strict=True)))
    return records


def to_csv(fields: tuple[str, ...] | list[str], records: list[dict]) -> str:
    """Records as CSV text with Unix line ends."""
    stream = textio.StringIO()
    writer = csv.DictWriter(stream, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def headline(tasks: list[Task]) -> dict:
    """`{task: {row: {metric: mean over seeds}}}` for `dvc metrics`: headline metrics that exist, six digits."""
    return {task.name: {row.name: {metric: float(number(value)) for metric in HEADLINE[task.family]
                                   if (value := row.estimate(metric).value) is not None}
                        for row in task.rows} for task in tasks}
