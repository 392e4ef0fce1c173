"""Rows compared on an equal footing, from runs of several strengths: `make strengths ARGS='TASK REVISION ...'`.

    dvc exp run -n half -S concept.lr_multiplier=0.5
    dvc exp run -n double -S concept.lr_multiplier=2 -S 'concept.rows=[concept-ablation,doco]'
    make strengths ARGS='emoji-object HEAD half double'

A strength is the factor on the rows' learning rates (`concept.lr_multiplier`, `images.lr_multiplier`). A revision is an
experiment, a commit or a branch whose cells are in DVC's cache; a row takes part with all strengths at which it was
run. Between neighbouring strengths all metrics are taken as linear. A row is compared where a metric first reaches a
level, in the estimates and in each paired bootstrap replicate:

- concept tasks at equal forgetting: UA on the training prompts;
- images tasks at equal forgetting, the NLL that the oracle gives the forget image, and at equal quality, a share of the
  base's Inception Score lost. What rows are held equal in stands in `report/sections/equal_footing.py`.

Writes results/strengths/TASK.json and TASK.png, which the report and the docs show.
"""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from revisions import Run, read

from palinode.core import io
from palinode.core.errors import UserError
from palinode.pipeline.stage import run_tool
from palinode.report import figures
from palinode.report.collect import Row
from palinode.report.reference_tables import read_mapping, read_tables
from palinode.report.sections.equal_footing import (
    FOLDER,
    FRONTS,
    LOST,
    QUESTIONS,
    Question,
    build_table,
    describe,
    draw_panels,
)

ERASED = 0.9  # fixed before any sweep was run; learning rates are chosen at the same level
LOSS = 0.05  # of the base's Inception Score: what `make tune` allows too
PAPER_TABLE = "siss_mnist_tshirt_table2"  # whose points are shown beside those of images tasks

Curve = dict[str, np.ndarray]  # metric -> [S, 1 + R], by rising strength: the estimate, then its paired replicates


def at_level(reached: np.ndarray, kept: np.ndarray, level: float) -> np.ndarray:
    """`kept` where `reached` first rises to `level`, linear between neighbours -> [R].

    reached: [S, R], by rising strength; kept: the same, or [S, 1]. NaN where the level is passed at the first strength
    already, or at none.
    """
    above = (reached >= level).argmax(0)
    upper = np.clip(above, min(1, len(reached) - 1), None)
    everywhere = np.broadcast_to(kept, reached.shape)
    f_0, f_1 = (np.take_along_axis(reached, place[None], 0)[0] for place in (upper - 1, upper))
    k_0, k_1 = (np.take_along_axis(everywhere, place[None], 0)[0] for place in (upper - 1, upper))
    crossed = (f_0 < level) & (f_1 >= level)
    share = np.divide(level - f_0, f_1 - f_0, out=np.full(len(f_0), np.nan), where=crossed)
    return k_0 + share * (k_1 - k_0)


def list_metrics(kind: str) -> tuple[list[str], list[str]]:
    """(metrics that every row must have, those left out where a row has none): styles have no far things."""
    questions = QUESTIONS[kind].values()
    needed = [metric for question in questions for metric in (question.reached, question.ranked) if metric != LOST]
    needed += ["inception_score_judge"] if kind == "images" else []
    others = [metric for question in questions for metric in question.kept]
    needed = list(dict.fromkeys(needed))
    return needed, [metric for metric in dict.fromkeys(others) if metric not in needed]


def make_curves(runs: list[Run]) -> dict[str, Curve]:
    """The curve of each row. A metric is left out unless all rows have it."""
    if len({tuple(run.seeds) for run in runs}) > 1:
        raise UserError("the revisions were run with different seeds")
    names = dict.fromkeys(row.name for run in runs for row in run.rows)
    if not names:
        raise UserError("no row was unlearned in any of the revisions")
    curves = {name: make_curve(name, runs) for name in names}
    first = next(iter(curves.values()))
    shared = [metric for metric in first if all(metric in curve for curve in curves.values())]
    return {name: {metric: curve[metric] for metric in shared} for name, curve in curves.items()}


def make_curve(name: str, runs: list[Run]) -> Curve:
    """The metrics of one row by rising strength."""
    pairs = [(run, row) for run in runs for row in run.rows if row.name == name]
    pairs.sort(key=lambda pair: pair[0].strength)
    strengths = [run.strength for run, _ in pairs]
    if len(set(strengths)) < len(strengths):
        raise UserError(f"{name}: two revisions have the same strength")
    curve = {"strength": np.array([[strength] for strength in strengths])}
    needed, others = list_metrics(runs[0].kind)
    for metric in [*needed, *others]:
        lines = [line_of(row, metric) for _, row in pairs]
        if all(line is not None for line in lines):
            curve[metric] = np.array(lines)
        elif metric in needed:
            reason = pairs[0][1].estimate(metric).reason
            raise UserError(f"{name}: {metric} is absent: {reason or 'it has no replicates'}")
    if runs[0].kind == "images":
        base = line_of(runs[0].references["base"], "inception_score_judge")
        curve[LOST] = 1 - curve["inception_score_judge"] / base
    return curve


def line_of(row: Row, metric: str) -> np.ndarray | None:
    """The estimate and its replicates, [1 + R]; None where there are none."""
    estimate = row.estimate(metric)
    if estimate.value is None or estimate.replicates is None:
        return None
    return np.array([estimate.value, *estimate.replicates])


def find_levels(runs: list[Run]) -> dict[str, float]:
    """The level of each question of the runs' kind."""
    if runs[0].kind == "concept":
        return {"forgetting": ERASED}
    oracle = runs[0].references["oracle"].estimate("nll_forget")
    if oracle.value is None:
        raise UserError(f"the oracle has no NLL of the forget image: {oracle.reason}")
    return {"forgetting": oracle.value, "quality": LOSS}


def compare(runs: list[Run]) -> dict[str, Any]:
    """What is written: kind, seeds, points [{row, strength, metric: value}], comparisons [{question, level, matched}].

    Of images tasks also `base`, the base's own values, and `paper`, the points of its table. matched: as of `match`.
    """
    kind = runs[0].kind
    curves = make_curves(runs)
    points = [
        {"row": row, "strength": float(strength)} | {metric: values[i, 0] for metric, values in curve.items()}
        for row, curve in curves.items()
        for i, strength in enumerate(curve["strength"][:, 0])
    ]
    comparisons = [
        {"question": name, "level": level, "matched": match(curves, QUESTIONS[kind][name], level)}
        for name, level in find_levels(runs).items()
    ]
    written = {"kind": kind, "seeds": runs[0].seeds, "points": points, "comparisons": comparisons}
    if kind == "images":
        front = FRONTS[kind]
        base = runs[0].references["base"]
        written["base"] = {metric: base.estimate(metric).value for metric in (front.across, *front.up)}
    return written


def match(curves: dict[str, Curve], question: Question, level: float) -> list[dict[str, Any]]:
    """[{row, strengths, reached, metric: {value, lo, hi}, behind}], what each row keeps where it reaches the level.

    reached: share of the replicates in which the row crosses the level between its strengths; behind: of those where
    both do, the share in which the row that is best is ahead, None if there is no such replicate. Rows that do not
    cross it in the estimates have the reason `outside` instead.
    """
    matched = []
    ranked = {}
    for row, curve in curves.items():
        entry: dict[str, Any] = {"row": row, "strengths": [float(strength) for strength in curve["strength"][:, 0]]}
        reached = curve[question.reached]
        wanted = [metric for metric in ("strength", *question.kept) if metric in curve]
        crossing = {metric: at_level(reached, curve[metric], level) for metric in wanted}
        if np.isnan(crossing["strength"][0]):
            entry["outside"] = say_outside(question, reached[:, 0])
        else:
            entry["reached"] = float(np.mean(~np.isnan(crossing["strength"][1:])))
            entry |= {metric: summarise(values) for metric, values in crossing.items()}
            ranked[row] = crossing[question.ranked]
        matched.append(entry)
    best = max(ranked, key=lambda row: ranked[row][0], default=None)
    for entry in matched:
        if best is not None and entry["row"] in ranked and entry["row"] != best:
            ahead = ranked[best][1:] - ranked[entry["row"]][1:]
            both = ~np.isnan(ahead)
            entry["behind"] = float(np.mean(ahead[both] > 0)) if both.any() else None
    return matched


def say_outside(question: Question, values: np.ndarray) -> str:
    """Why a row is not compared: the metric at its weakest and its strongest."""
    names = {"ua_training_prompts": ("UA", ".0%"), "nll_forget": ("NLL", ".2f"), LOST: ("lost", ".0%")}
    name, form = names[question.reached]
    ends = " to ".join(dict.fromkeys(f"{value:{form}}" for value in values[[0, -1]]))
    return f"{name} {ends}, not across the level"


def read_paper(root: Path) -> list[dict[str, Any]]:
    """The rows of the SISS paper's table, as points of the front: {row, across, up}."""
    metrics = read_mapping(root)["tasks"]["tshirt"][PAPER_TABLE]
    theirs = {entry["ours"]: name for name, entry in metrics.items()}
    front = FRONTS["images"]
    across, up = theirs[front.across], theirs[front.up[0]]
    (table,) = [table for table in read_tables(root) if table["id"] == PAPER_TABLE]
    return [{"row": name, "across": row[across], "up": row[up]} for name, row in table["rows"].items()]


def summarise(values: np.ndarray) -> dict[str, float]:
    """The estimate, which comes first, with the interval of its replicates; the estimate alone where none has one."""
    if np.isnan(values[1:]).all():
        return {"value": values[0], "lo": values[0], "hi": values[0]}
    lo, hi = np.nanquantile(values[1:], [0.025, 0.975])
    return {"value": values[0], "lo": lo, "hi": hi}


def markdown(comparison: dict, task: str) -> str:
    """The comparison as the docs show it."""
    lines = [f"![{task} by strength](../{FOLDER / task}.png)"]
    for part in comparison["comparisons"]:
        heads, rows = build_table(comparison, part)
        lines += [
            "",
            f"**Task `{task}`.** {describe(comparison, part)}",
            "",
            "| " + " | ".join(heads) + " |",
            "|---" * 2 + "|---:" * (len(heads) - 2) + "|",
            *("| " + " | ".join(cells) + " |" for cells in rows),
        ]
    return "\n".join(lines)


def run(*arguments: str) -> None:
    if len(arguments) < 3:
        raise UserError("arguments: TASK REVISION REVISION ...")
    task, *revisions = arguments
    comparison = compare([read(task, revision) for revision in revisions])
    if comparison["kind"] == "images":
        comparison["paper"] = read_paper(Path("reference"))
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    FOLDER.mkdir(parents=True, exist_ok=True)
    io.write_json(FOLDER / f"{task}.json", {"commit": commit, **comparison})
    draw(comparison, FOLDER / f"{task}.png")


def draw(comparison: dict, path: Path) -> None:
    with io.atomic(path) as temporary, draw_panels(comparison) as fig:
        temporary.write_bytes(figures.png(fig))


if __name__ == "__main__":
    run_tool(run)
