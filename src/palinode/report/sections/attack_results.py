"""A task's part on attacks: how much of the target comes back, by the attack's steps."""

import dataclasses
from typing import Any

from palinode.attacks.outcome import BACK
from palinode.core import io
from palinode.metrics import registry
from palinode.report import figures, tables
from palinode.report.collect import Row, Task
from palinode.report.tables import Table, TableCell


def view(task: Task, mapping: dict) -> dict[str, Any] | None:
    """What the template shows of a task whose cells were attacked; None of another."""
    steps = list_steps(task)
    if not steps:
        return None
    return {"table": build_table(task, mapping), "figure": draw(task), "budgets": read_budgets(task, list(steps))}


def list_steps(task: Task) -> dict[str, list[int]]:
    """Attack -> after how many of its steps pictures were judged; empty if nothing was attacked."""
    steps = {}
    for attack in registry.ATTACKS:
        prefix = f"target_{attack}_"
        judged = [int(name.removeprefix(prefix)) for name in task.metrics if name.startswith(prefix)]
        if judged:
            steps[attack] = judged
    return steps


def list_attacked(task: Task) -> list[Row]:
    """The rows with a cell that was attacked."""
    names = {f"{attack}_steps" for attack in registry.ATTACKS}
    return [row for row in task.rows if any(names & cell.metrics.keys() for cell in row.cells)]


def read_budgets(task: Task, attacks: list[str]) -> dict[str, dict]:
    """Label of each attack -> what it was allowed, from the first cell that has it."""
    folders = [cell.folder / "attacks" for row in list_attacked(task) for cell in row.cells]
    budgets = {}
    for attack in attacks:
        paths = [folder / attack.replace("_", "-") / "budget.json" for folder in folders]
        path = next(path for path in paths if path.exists())
        budgets[registry.ATTACKS[attack]] = io.read_json(path)
    return budgets


def build_table(task: Task, mapping: dict) -> Table:
    """Shares by step, and the first step at which the target is back; "> n" where it is not within n steps."""
    names: list[str] = []
    last = {}
    for attack, steps in list_steps(task).items():
        names += [*(f"target_{attack}_{step}" for step in steps), f"{attack}_steps"]
        last[f"{attack}_steps"] = steps[-1]
    columns = tuple(registry.lookup(name) for name in names)
    table = tables.build(task, columns, None, mapping, list_attacked(task))
    for row in table.rows:
        for i, (entry, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
            if entry.name in last and not cell.value:
                row.cells[i] = open_end(cell, last[entry.name])
    return table


def open_end(cell: TableCell, last: int) -> TableCell:
    """The cell of a target that is not back within `last` steps; of several seeds or subjects it names the first."""
    part, colon, _ = cell.reason.partition(":")
    return dataclasses.replace(cell, value=f"> {last}", interval=part if colon else "")


def draw(task: Task) -> str:
    """One panel an attack, one line a row, whiskers of 95 %; steps at equal distances -> inline SVG."""
    panels = list_steps(task)
    with figures.figure(10.4, 3.6, ncols=len(panels), squeeze=False, sharey=True) as (fig, axes):
        for ax, (attack, steps) in zip(axes.flat, panels.items(), strict=True):
            for i, row in enumerate(list_attacked(task)):
                draw_row(ax, row, [f"target_{attack}_{step}" for step in steps], i)
            ax.axhline(BACK, color=figures.GREY, linewidth=0.6, linestyle=figures.DASHED)
            ax.set(xticks=range(len(steps)), xticklabels=steps, xlabel="step", ylim=(-0.03, 1.03))
            ax.set_title(registry.ATTACKS[attack])
        axes[0, 0].set_ylabel("share with the target")
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        return figures.inline_svg(fig, f"{task.name}-attacks", "Share of pictures with the target by attack step")


def draw_row(ax: Any, row: Row, metrics: list[str], i: int) -> None:
    places = range(len(metrics))
    shares = [row.estimate(metric) for metric in metrics]
    mark = figures.choose_mark(i)
    ax.plot(places, [share.value for share in shares], **mark, markersize=4, linewidth=1.2, label=row.name)
    ends = [[share.lo for share in shares], [share.hi for share in shares]]
    ax.vlines(places, *ends, color=mark["color"], linewidth=0.6)
