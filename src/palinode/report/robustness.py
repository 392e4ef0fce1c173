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
    measured = {attack: steps for attack in ATTACKS if (steps := steps_of(task, attack))}
    if not measured:
        return None
    rows = [row for row in task.rows if any(row.estimate(share(a, 0)).value is not None for a in measured)]
    return {"table": table(task, rows, measured, mapping), "figure": figure(task, rows, measured),
            "budgets": [(ATTACKS[attack], budget(rows[0], attack)) for attack in measured]}  # fmt: skip


def share(attack: str, step: int) -> str:
    """The metric's name."""
    return f"target_{attack}_{step}"


def steps_of(task: Task, attack: str) -> list[int]:
    """After how many steps of the attack pictures were judged."""
    start = share(attack, 0).removesuffix("0")
    return [int(name.removeprefix(start)) for name in task.metrics if name.startswith(start)]


def table(task: Task, rows: list[Row], measured: dict[str, list[int]], mapping: dict) -> Table:
    """Shares by step, and the first step at which the target is back; "> n" where it is not within n steps."""
    columns: list[Column] = []
    for attack, steps in measured.items():
        columns += [tables.rate(share(attack, step), f"{ATTACKS[attack]}, {step} steps", "↓") for step in steps]
        columns.append(Column(f"{attack}_steps", f"{ATTACKS[attack]}: {100 * BACK:g} % after", "↑", 0, "steps"))
    built = tables.build(task, tuple(columns), None, mapping, rows)
    last = {f"{attack}_steps": steps[-1] for attack, steps in measured.items()}
    for _, _, cells in built.rows:
        for i, (column, cell) in enumerate(zip(built.columns, cells, strict=True)):
            if column.metric in last and "not back" in cell.reason:
                where = cell.reason.partition(": ")[0] if cell.reason.startswith("seed") else ""
                cells[i] = dataclasses.replace(cell, value=f"> {last[column.metric]}", interval=where, reason="")
    return built


def budget(row: Row, attack: str) -> str:
    found = io.read_json(row.cells[0].folder / "robustness" / attack / "budget.json")
    return ", ".join(f"{key} {value}" for key, value in found.items())


def figure(task: Task, rows: list[Row], measured: dict[str, list[int]]) -> str:
    """One panel an attack, one line a row, whiskers of 95 %; steps at equal distances -> inline SVG."""
    colours, styles = (plots.BLUE, plots.ORANGE, plots.GREEN), ("-", "--", ":", "-.")
    names = [row.name for row in rows if not row.reference]
    looks = {name: (colours[i % len(colours)], styles[i // len(colours) % len(styles)]) for i, name in enumerate(names)}
    looks |= {"base": (plots.GREY, "-"), "oracle": (plots.GREY, "--")}
    with plots.figure(10.4, 3.6, ncols=len(measured), squeeze=False, sharey=True) as (fig, axes):
        for ax, (attack, steps) in zip(axes.flat, measured.items(), strict=True):
            for row in rows:
                found = [row.estimate(share(attack, step)) for step in steps]
                colour, style = looks[row.name]
                drawn = [(x, it) for x, it in enumerate(found) if it.value is not None]
                places, values = [x for x, _ in drawn], [it.value for _, it in drawn]
                ax.plot(places, values, style, color=colour, marker="o", markersize=3, linewidth=1.3, label=row.name)
                for x, it in drawn:
                    ax.plot([x, x], [it.lo, it.hi], color=colour, linewidth=0.6, alpha=0.6)
            ax.axhline(BACK, color=plots.GREY, linewidth=0.6, linestyle=(0, (4, 4)))
            ax.set(xticks=range(len(steps)), xticklabels=steps, xlabel="step", ylim=(-0.03, 1.03))
            ax.set_title(ATTACKS[attack])
        axes[0, 0].set_ylabel("share with the target")
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        return plots.inline_svg(fig, f"{task.name}-robustness", "Share of pictures with the target by attack step")
