"""Read the evaluated cells of a run: tasks of rows of cells, one cell a subject and seed.

What to read is in `params.stage_settings.ReportSettings`. The order of its tasks and rows is the order shown.
"""

import dataclasses
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from palinode.core import io
from palinode.core.errors import UserError
from palinode.metrics import registry
from palinode.params.fields import Training
from palinode.params.report_settings import Counted, ReportRow, ReportSettings, ReportTask
from palinode.report.averages import Estimate, average_seeds, average_subjects

CELLS = Path("out/cells")
ALL = "all"  # the subject of a cell that pools all of them, and in files the seed and subject of a mean
SEQUENTIAL = "sequential"  # the subject of the model that forgot all the others one after the other
NO_SUBJECT = "no subject"  # how the reason of a cell begins whose task has fewer subjects
REFERENCE_ROWS = {  # kind -> the rows that the others are read against; always seed 0
    "images": ("real", "base", "oracle"),
    "concept": ("base", "oracle", "other-seed"),
    "prompts": ("base", "mitigated"),
}


@dataclass(frozen=True)
class Cell:
    """One subject and seed of a row: its folder, its metrics and their replicates, or the reason for its absence."""

    subject: str
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
            return Estimate(reason=entry["reason"])
        if not math.isfinite(entry["value"]):
            return Estimate(reason=f"the value is {entry['value']}")
        return Estimate(
            entry["value"],
            entry["lo"],
            entry["hi"],
            entry["n"],
            entry["interval"],
            samples=entry["n"],
            replicates=self.replicates.get(metric),
        )


@dataclass(frozen=True)
class Row:
    """All cells of a method configuration or of a reference, subject by subject.

    paper: id of the row in the reference tables that this one stands beside; settings: what ran, None of a reference.
    """

    name: str
    cells: list[Cell]
    reference: bool = False
    paper: str | None = None
    settings: ReportRow | None = None

    def cells_for(self, metric: str) -> list[Cell]:
        """The cells that count for a metric.

        The sequential one has metrics of its own, which no average mixes in. Of the seeds one alone may be counted.
        """
        counted = [cell for cell in self.cells if metric == registry.COUNTED and metric in cell.metrics]
        if counted:
            return counted
        sequential = metric.startswith(registry.SEQUENTIAL)
        return [cell for cell in self.cells if cell.subject == ALL or (cell.subject == SEQUENTIAL) == sequential]

    def estimate(self, metric: str) -> Estimate:
        """The mean over subjects of the means over seeds. A single cell keeps its own interval."""
        groups: dict[str, list[tuple[str, Estimate]]] = {}
        for cell in self.cells_for(metric):
            groups.setdefault(cell.subject, []).append((str(cell.seed), cell.estimate(metric)))
        if not groups:
            return Estimate(reason="not measured on this row")
        range_ = registry.lookup(metric).range
        return average_subjects(
            [(subject, average_seeds(parts, range_, subject)) for subject, parts in groups.items()], range_
        )

    def lists(self, metric: str) -> bool:
        """Whether a cell has the metric, even as an absent one, or is absent itself."""
        return any(cell.absent or metric in cell.metrics for cell in self.cells_for(metric))


@dataclass(frozen=True)
class Task:
    """One task of the run: reference rows first, then the unlearning rows in the order of the settings."""

    name: str
    kind: str
    seeds: list[int]
    rows: list[Row]
    root: Path

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for cell in row.cells for name in cell.metrics))

    @property
    def subjects(self) -> list[str]:
        """What was forgotten, one at a time, the subjects that the task does not have left out."""
        subjects = dict.fromkeys(cell.subject for row in self.rows for cell in row.cells if not cell.absent)
        return [subject for subject in subjects if subject != SEQUENTIAL]

    @property
    def unlearned(self) -> list[Row]:
        return [row for row in self.rows if not row.reference]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def collect(settings: ReportSettings, root: Path = Path(".")) -> list[Task]:
    """Read every cell the settings name, under `root/out/cells`. A missing cell is a UserError that names it."""
    attacks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in settings.attacked:
        attacks[item.task, item.row] += item.attacks
    tasks = [read_task(task, settings.seeds, attacks, root) for task in settings.tasks]
    return [add_counts(task, [item for item in settings.counted if item.task == task.name]) for task in tasks]


def read_task(task: ReportTask, seeds: list[int], attacks: dict[tuple[str, str], list[str]], root: Path) -> Task:
    rows = []
    for name in REFERENCE_ROWS[task.kind]:
        cells = read_cells(task, name, [0], attacks[task.name, name], root)
        rows.append(Row(name, cells, reference=True))
    for name, row in task.rows.items():
        cells = read_cells(task, name, seeds, attacks[task.name, name], root)
        cells = [with_cost(cell, row.training) for cell in cells]
        rows.append(Row(name, cells, paper=row.paper, settings=row))
    return Task(task.name, task.kind, list(seeds), rows, root)


def read_cells(task: ReportTask, row: str, seeds: list[int], attacks: list[str], root: Path) -> list[Cell]:
    """The cells of a row whose subject the task has; the first, absent one where it has none of them."""
    cells = []
    for subject in map(str, task.subjects):
        for seed in seeds:
            folder = root / CELLS / task.name / subject / row / str(seed)
            cells.append(read_cell(folder, subject, seed, attacks))
    return [cell for cell in cells if not cell.absent.startswith(NO_SUBJECT)] or cells[:1]


def read_cell(folder: Path, subject: str, seed: int, attacks: list[str]) -> Cell:
    """Read a cell's evaluation, and those attacks on it that are not absent."""
    reason = io.absence(folder / "evaluation")
    if reason:
        return Cell(subject, seed, folder, absent=reason)
    places = [folder / "attacks" / attack for attack in attacks]
    metrics: dict[str, dict] = {}
    replicates: dict[str, np.ndarray] = {}
    for place in [folder / "evaluation", *(place for place in places if not io.absence(place))]:
        entries, drawn = read_metrics(folder, place)
        metrics |= entries
        replicates |= drawn
    if subject == SEQUENTIAL:
        metrics = {registry.SEQUENTIAL + name: entry for name, entry in metrics.items()}
        replicates = {registry.SEQUENTIAL + name: drawn for name, drawn in replicates.items()}
    return Cell(subject, seed, folder, metrics, replicates)


def read_metrics(cell: Path, place: Path) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    """Metrics and replicates of one folder of a cell; UserError when one is missing."""
    for file in ("metrics.json", "replicates.npz"):
        if not (place / file).exists():
            raise UserError(f"cell {cell} is not evaluated: {place / file} is missing")
    return io.read_json(place / "metrics.json"), io.read_arrays(place / "replicates.npz")


def add_counts(task: Task, counted: list[Counted]) -> Task:
    """The task with the rates that were counted among many samples, where the images to forget were."""
    wanted = {(item.row, item.seed) for item in counted}
    rows = []
    for row in task.rows:
        cells = [add_place(cell, "count") if (row.name, cell.seed) in wanted else cell for cell in row.cells]
        rows.append(dataclasses.replace(row, cells=cells))
    return dataclasses.replace(task, rows=rows)


def add_place(cell: Cell, place: str) -> Cell:
    """The cell with the metrics of another of its folders, unless one of the two is absent."""
    folder = cell.folder / place
    if cell.absent or io.absence(folder):
        return cell
    metrics, replicates = read_metrics(cell.folder, folder)
    return dataclasses.replace(cell, metrics=cell.metrics | metrics, replicates=cell.replicates | replicates)


def with_cost(cell: Cell, training: Training) -> Cell:
    """The cell with its NFE per sample of an optimiser step, and the cost F + 2 B of F forwards and B backwards."""
    counts = [cell.estimate(name).value for name in ("nfe_forward", "nfe_backward")]
    seen = training.steps * training.batch * training.accumulate
    if not seen or None in counts:
        return cell
    forward, backward = (count / seen for count in counts if count is not None)
    derived = {
        "nfe_forward_per_sample": forward,
        "nfe_backward_per_sample": backward,
        "cost_per_sample": forward + 2 * backward,
    }
    entries = {
        name: {"value": value, "lo": None, "hi": None, "n": seen, "interval": "none"} for name, value in derived.items()
    }
    return dataclasses.replace(cell, metrics=cell.metrics | entries)
