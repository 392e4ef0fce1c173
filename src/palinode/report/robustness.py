"""A task's part on attacks: how much of the target comes back, by the attack's steps."""

import dataclasses

from palinode import io
from palinode.metrics.robustness import BACK
from palinode.report import plots, tables
from palinode.report.collect import Row, Task
from palinode.report.tables import Column, Table

ATTACKS = {"relearn": "Relearning", "prefix": "Prefix"}


def view(task: Task, mapping: dict) -> dict | None:
    """What the template shows of a task whose cells were attacked; None of another."""
    if not (found := judged(task)):
        return None
    place = attacked(task)[0].cells[0].folder / "robustness"
    budgets = {ATTACKS[attack]: io.read_json(place / attack / "budget.json") for attack in found}
    return {"table": table(task, mapping), "figure": figure(task), "budgets": budgets}


def judged(task: Task) -> dict[str, list[int]]:
    """Attack -> after how many of its steps pictures were judged; empty if nothing was attacked."""
    found = {}
    for attack in ATTACKS:
        prefix = f"target_{attack}_"
        if steps := [int(name.removeprefix(prefix)) for name in task.metrics if name.startswith(prefix)]:
            found[attack] = steps
    return found


def attacked(task: Task) -> list[Row]:
    """The rows with a cell that was attacked."""
    return [row for row in task.rows if {f"{attack}_steps" for attack in ATTACKS} & row.cells[0].metrics.keys()]


def table(task: Task, mapping: dict) -> Table:
    """Shares by step, and the first step at which the target is back; "> n" where it is not within n steps."""
    columns: list[Column] = []
    for attack, steps in judged(task).items():
        title = ATTACKS[attack]
        columns += [tables.rate(f"target_{attack}_{step}", f"{title}, {step} steps", "↓") for step in steps]
        columns.append(Column(f"{attack}_steps", f"{title}: {100 * BACK:g} % after", "↑", 0, "steps"))
    built = tables.build(task, tuple(columns), None, mapping, attacked(task))
    last = {f"{attack}_steps": steps[-1] for attack, steps in judged(task).items()}
    for _, _, cells in built.rows:
        for i, (column, cell) in enumerate(zip(built.columns, cells, strict=True)):
            if column.metric in last and not cell.value:
                seed = cell.reason.partition(":")[0] if cell.reason.startswith("seed") else ""
                cells[i] = dataclasses.replace(cell, value=f"> {last[column.metric]}", interval=seed)
    return built


def figure(task: Task) -> str:
    """One panel an attack, one line a row, whiskers of 95 %; steps at equal distances -> inline SVG."""
    colours, styles = (plots.GREY, plots.BLUE, plots.ORANGE, plots.GREEN), ("-", "--", ":", "-.")
    found = judged(task)
    with plots.figure(10.4, 3.6, ncols=len(found), squeeze=False, sharey=True) as (fig, axes):
        for ax, (attack, steps) in zip(axes.flat, found.items(), strict=True):
            places = range(len(steps))
            for i, row in enumerate(attacked(task)):
                shares = [row.estimate(f"target_{attack}_{step}") for step in steps]
                colour, style = colours[i % 4], styles[i // 4 % 4]
                ax.plot(places, [it.value for it in shares], style, color=colour, marker=".", label=row.name)
                ax.vlines(places, [it.lo for it in shares], [it.hi for it in shares], color=colour, linewidth=0.6)
            ax.axhline(BACK, color=plots.GREY, linewidth=0.6, linestyle=(0, (4, 4)))
            ax.set(xticks=places, xticklabels=steps, xlabel="step", ylim=(-0.03, 1.03))
            ax.set_title(ATTACKS[attack])
        axes[0, 0].set_ylabel("share with the target")
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        return plots.inline_svg(fig, f"{task.name}-robustness", "Share of pictures with the target by attack step")
