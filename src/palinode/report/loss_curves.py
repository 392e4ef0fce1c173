"""Training losses of the unlearning rows: panels for the page, and one table a row for `dvc plots`.

`training.csv` of a cell has a column `loss_<name>` for each loss; what the names mean is in `MEANINGS`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from palinode.core.io import read_csv
from palinode.report import figures
from palinode.report.collect import SEQUENTIAL, Cell, Row, Task

MEANINGS = {
    "retain": "on what is kept",
    "forget": "on what is forgotten",
    "anchor": "on the anchor's pictures",
    "adversary": "of the generator against its discriminator",
    "penalty": "for leaving the original weights",
    "combined": "on what is kept, less that on what is forgotten",
}
COLOURS = dict(zip(MEANINGS, figures.COLOURS, strict=False))
PREFIX = "loss_"
TOLD = "discriminator_"  # prefix of the shares that a discriminator told right, by quarter of the time steps
QUARTERS = ("t in the first quarter: little noise", "second", "third", "last: nearly all noise")
ACROSS = 4  # panels beside one another
WIDE = 30  # from this ratio of values on, an axis is logarithmic
LARGE = 1e3  # the same for a loss that is not positive throughout


@dataclass(frozen=True)
class Curve:
    """One loss: the steps at which it was logged, and its values [T] there."""

    steps: list[int]
    values: np.ndarray


Log = dict[str, Curve]  # what one cell logged, by the name of the loss


def read_log(cell: Cell, prefix: str = PREFIX) -> Log:
    """The losses of a cell, or what else has a prefix; none where its method logs none."""
    records = read_csv(cell.folder / "training" / "training.csv")
    names = [name for name in records[0] if name.startswith(prefix)] if records else []
    log = {}
    for name in names:
        logged = [record for record in records if record[name]]
        values = np.array([float(record[name]) for record in logged])
        log[name.removeprefix(prefix)] = Curve([int(float(record["step"])) for record in logged], values)
    return {name: curve for name, curve in log.items() if curve.steps}


def read_logs(task: Task, prefix: str = PREFIX) -> dict[str, Log]:
    """Row -> the log of its first subject and seed; rows without one are left out."""
    logs = {row.name: read_log(cell, prefix) for row in task.unlearned if (cell := first_cell(row))}
    return {name: log for name, log in logs.items() if log}


def first_cell(row: Row) -> Cell | None:
    present = (cell for cell in row.cells if not cell.absent and cell.subject != SEQUENTIAL)
    return next(present, None)


def draw_curves(task: Task) -> str | None:
    """One panel a row: its losses by step (thin: logged; thick: running mean) -> inline SVG; None without losses."""
    logs = read_logs(task)
    if not logs:
        return None
    down = -(-len(logs) // ACROSS)
    with figures.figure(10.4, 2.1 * down + 0.4, nrows=down, ncols=ACROSS, squeeze=False) as (fig, axes):
        for ax, (row, log) in zip(axes.flat, logs.items(), strict=False):
            draw_panel(ax, row, log)
        for ax in list(axes.flat)[len(logs) :]:
            ax.axis("off")
        for ax in axes[-1]:
            ax.set_xlabel("step", fontsize=9)
        names = list_names(logs)
        lines = [fig.axes[0].plot([], [], color=choose_colour(name), linewidth=2)[0] for name in names]
        fig.legend(lines, names, loc="outside upper left", ncols=len(names), frameon=False)
        return figures.inline_svg(fig, f"{task.name}-training", "Training losses by step, one panel a row")


def draw_panel(ax: Any, row: str, log: Log) -> None:
    for name, curve in log.items():
        colour = choose_colour(name)
        ax.plot(curve.steps, curve.values, color=colour, linewidth=0.6, alpha=0.35)
        ax.plot(curve.steps, figures.running_mean(curve.values), color=colour, linewidth=1.6)
    low, high = ax.get_ylim()
    if low > 0 and high > WIDE * low:
        ax.set_yscale("log")
    elif low <= 0 and max(-low, high) > LARGE:
        ax.set_yscale("symlog")
    ax.set_title(row)
    ax.tick_params(labelsize=8)


def draw_discriminators(task: Task) -> str | None:
    """One panel a row with a discriminator: the share of patches told right, by quarter of the time steps."""
    logs = read_logs(task, TOLD)
    if not logs:
        return None
    with figures.figure(3.6 * len(logs), 2.9, ncols=len(logs), squeeze=False) as (fig, axes):
        for ax, (row, log) in zip(axes.flat, logs.items(), strict=True):
            for quarter, curve in sorted(log.items()):
                number = int(quarter) - 1
                told = 100 * figures.running_mean(curve.values)
                ax.plot(curve.steps, told, color=figures.COLOURS[number], linewidth=1.4)
            ax.axhline(50, color=figures.GREY, linewidth=0.7, linestyle=figures.DASHED)
            ax.set(title=row, xlabel="step", ylim=(0, 105))
        axes[0, 0].set_ylabel("patches told right (%)")
        colours = figures.COLOURS[: len(QUARTERS)]
        lines = [axes[0, 0].plot([], [], color=colour, linewidth=1.4)[0] for colour in colours]
        fig.legend(lines, QUARTERS, loc="outside lower center", ncols=2, frameon=False)
        title = "What the discriminator tells right, by quarter of the time steps"
        return figures.inline_svg(fig, f"{task.name}-discriminators", title)


def list_names(logs: dict[str, Log]) -> list[str]:
    """The losses that occur, in the order of `MEANINGS`, then any other."""
    present = {name for log in logs.values() for name in log}
    return [name for name in MEANINGS if name in present] + sorted(present - MEANINGS.keys())


def choose_colour(name: str) -> str:
    return COLOURS.get(name, figures.GREY)


def describe_losses(task: Task) -> str:
    """What each loss of the figure is, as text."""
    names = list_names(read_logs(task))
    return "; ".join(f"{name}: {MEANINGS[name]}" for name in names if name in MEANINGS)


def list_curves(tasks: list[Task], loss: str) -> dict[str, list[dict[str, object]]]:
    """File name -> records (step, loss) of each row that has a loss of that name; DVC draws one curve a file."""
    curves: dict[str, list[dict[str, object]]] = {}
    for task in tasks:
        for row, log in read_logs(task).items():
            if loss in log:
                pairs = zip(log[loss].steps, log[loss].values, strict=True)
                curves[f"{task.name}-{row}.csv"] = [{"step": step, "loss": float(value)} for step, value in pairs]
    return curves
