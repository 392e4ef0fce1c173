"""Concept rows compared at equal forgetting, from runs of several strengths: `make strengths ARGS='TASK REVISION ...'`.

    dvc exp run -n half -S concept.lr_multiplier=0.5
    dvc exp run -n double -S concept.lr_multiplier=2 -S 'concept.rows=[concept-ablation,doco]'
    make strengths ARGS='emoji-object HEAD half double'

A strength is the factor on the rows' learning rates. A revision is an experiment, a commit or a branch whose cells are
in DVC's cache; a row takes part with all strengths at which it was run. Between neighbouring strengths, what is
forgotten and what is kept are taken as linear. A row is compared where its UA on the training prompts first crosses
LEVEL, in the estimates and in each paired bootstrap replicate. Writes results/strengths/TASK.json and TASK.png, which
the report and docs/concepts.md show.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from published import choose_tasks

from palinode import params
from palinode.core import io
from palinode.core.errors import UserError
from palinode.core.work import PLANS, read_plan
from palinode.params.stage_settings import ReportSettings
from palinode.pipeline.stage import run_tool
from palinode.report import figures
from palinode.report.collect import CELLS, REFERENCE_ROWS, Row, collect
from palinode.report.sections.equal_forgetting import FOLDER, FORGOT, KEPT, build_table, caption, draw_panels

LEVEL = 0.9  # fixed before any sweep was run; learning rates are chosen at the same level
RANKED = "integrity_near_judge"
CODE = ("src", "stages", "dvc.yaml")


@dataclass(frozen=True)
class Run:
    """One revision: its strength, and the unlearning rows of the task in it."""

    strength: float
    seeds: list[int]
    rows: list[Row]


class Revision:
    """The files of a commit, from git or from DVC's cache, copied into `root` as they are asked for."""

    def __init__(self, name: str, root: Path):
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException
        from dvc.scm import SCM, RevError, resolve_rev

        self.name = name
        self.root = root
        self.errors = (OSError, DvcException)
        try:
            self.commit = resolve_rev(SCM("."), name)
            self.files = DVCFileSystem(".", rev=self.commit)
        except (DvcException, RevError) as error:
            raise UserError(f"{name}: {error}") from None

    def fetch(self, path: Path) -> Path:
        """Where a file or folder now lies. UserError when it is not there."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.files.get(path.as_posix(), str(place), recursive=True)
        except self.errors as error:
            raise UserError(f"{self.name}: {path} is not in DVC's cache ({error})") from None
        return place


def read(task: str, name: str) -> Run:
    """The evaluated cells of a task at a revision, from DVC's cache.

    UserError when they are not there, or other code made them than the commit checked out.
    """
    with tempfile.TemporaryDirectory() as folder:
        revision = Revision(name, Path(folder))
        if subprocess.run(["git", "diff", "--quiet", revision.commit, "HEAD", "--", *CODE], check=False).returncode:
            raise UserError(f"{name} did not run the code of the commit checked out")
        ran = params.load(revision.fetch(Path("params.yaml")))
        settings = read_plan(revision.fetch(PLANS / "report.json"), ReportSettings)
        if task not in {item.name for item in settings.tasks if item.kind == "concept"}:
            raise UserError(f"{name} has no concept task {task!r}")
        chosen = choose_tasks(settings, [task]).model_copy(update={"attacked": []})
        for cell in list_cells(chosen):
            revision.fetch(cell / "evaluation")
        (collected,) = collect(chosen, revision.root)
        return Run(ran.concept.lr_multiplier, chosen.seeds, collected.unlearned)


def list_cells(settings: ReportSettings) -> list[Path]:
    """The folders of the cells of the one task in the settings."""
    (task,) = settings.tasks
    names = [f"{row}/0" for row in REFERENCE_ROWS[task.kind]]
    names += [f"{row}/{seed}" for row in task.rows for seed in settings.seeds]
    return [CELLS / task.name / str(subject) / name for subject in task.subjects for name in names]


def at_level(forgot: np.ndarray, kept: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """`kept` where `forgot` first reaches `level`, linear between neighbours -> [R].

    forgot: [S, R], by rising strength; kept: the same, or [S, 1]. NaN where the level is passed at the first strength
    already, or at none.
    """
    reached = (forgot >= level).argmax(0)
    upper = np.clip(reached, min(1, len(forgot) - 1), None)
    everywhere = np.broadcast_to(kept, forgot.shape)
    f_0, f_1 = (np.take_along_axis(forgot, place[None], 0)[0] for place in (upper - 1, upper))
    k_0, k_1 = (np.take_along_axis(everywhere, place[None], 0)[0] for place in (upper - 1, upper))
    crossed = (f_0 < level) & (f_1 >= level)
    share = np.divide(level - f_0, f_1 - f_0, out=np.full(len(f_0), np.nan), where=crossed)
    return k_0 + share * (k_1 - k_0)


def make_curves(runs: list[Run]) -> dict[str, dict[str, np.ndarray]]:
    """row -> metric -> [S, 1 + R], by rising strength: the estimate, then its paired replicates.

    A metric of KEPT other than RANKED is left out where a row has none: styles have no far things.
    """
    if len({tuple(run.seeds) for run in runs}) > 1:
        raise UserError("the revisions were run with different seeds")
    names = dict.fromkeys(row.name for run in runs for row in run.rows)
    curves = {name: make_curve(name, runs) for name in names}
    shared = [metric for metric in ("strength", FORGOT, *KEPT) if all(metric in curve for curve in curves.values())]
    return {name: {metric: curve[metric] for metric in shared} for name, curve in curves.items()}


def make_curve(name: str, runs: list[Run]) -> dict[str, np.ndarray]:
    """The metrics of one row by rising strength."""
    pairs = [(run.strength, row) for run in runs for row in run.rows if row.name == name]
    rows = dict(sorted(pairs, key=lambda pair: pair[0]))
    if len(rows) < len(pairs):
        raise UserError(f"{name}: two revisions have the same strength")
    curve = {"strength": np.array([[strength] for strength in rows])}
    for metric in (FORGOT, *KEPT):
        estimates = [row.estimate(metric) for row in rows.values()]
        lines = [[item.value, *item.replicates] for item in estimates if item.replicates is not None]
        if len(lines) == len(estimates):
            curve[metric] = np.array(lines)
        elif metric in (FORGOT, RANKED):
            raise UserError(f"{name}: {metric} is absent: {estimates[0].reason or 'it has no replicates'}")
    return curve


def compare(runs: list[Run]) -> dict[str, Any]:
    """What is written: {"level", "seeds", "points": [{row, strength, metric: value}], "matched": as of `match`}."""
    curves = make_curves(runs)
    points = [
        {"row": row, "strength": float(strength)} | {metric: values[i, 0] for metric, values in curve.items()}
        for row, curve in curves.items()
        for i, strength in enumerate(curve["strength"][:, 0])
    ]
    return {"level": LEVEL, "seeds": runs[0].seeds, "points": points, "matched": match(curves)}


def match(curves: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """[{row, strengths, reached, metric: {value, lo, hi}, behind}], what each row keeps where it reaches the level.

    reached: share of the replicates in which the row crosses the level between its strengths; behind: of those where
    both do, the share in which the row that keeps most is ahead. Rows that do not cross it in the estimates have the
    reason `outside` instead.
    """
    matched = []
    ranked = {}
    for row, curve in curves.items():
        entry: dict[str, Any] = {"row": row, "strengths": [float(strength) for strength in curve["strength"][:, 0]]}
        crossing = {metric: at_level(curve[FORGOT], values) for metric, values in curve.items() if metric != FORGOT}
        if np.isnan(crossing["strength"][0]):
            ends = " to ".join(dict.fromkeys(f"{share:.0%}" for share in curve[FORGOT][[0, -1], 0]))
            entry["outside"] = f"UA {ends}, not across the level"
        else:
            entry["reached"] = float(np.mean(~np.isnan(crossing["strength"][1:])))
            entry |= {metric: summarise(values) for metric, values in crossing.items()}
            ranked[row] = crossing[RANKED]
        matched.append(entry)
    best = max(ranked, key=lambda row: ranked[row][0], default=None)
    for entry in matched:
        if best is not None and entry["row"] in ranked and entry["row"] != best:
            ahead = ranked[best][1:] - ranked[entry["row"]][1:]
            entry["behind"] = float(np.mean(ahead[~np.isnan(ahead)] > 0))
    return matched


def summarise(values: np.ndarray) -> dict[str, float]:
    """The estimate, which comes first, with the interval of its replicates."""
    lo, hi = np.nanquantile(values[1:], [0.025, 0.975])
    return {"value": values[0], "lo": lo, "hi": hi}


def markdown(comparison: dict, task: str) -> str:
    """The comparison as docs/concepts.md shows it."""
    heads, rows = build_table(comparison)
    lines = [
        f"**Task `{task}`.** {caption(comparison)}",
        "",
        f"![{task} by strength](../{FOLDER / task}.png)",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * 2 + "|---:" * (len(heads) - 2) + "|",
    ]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def run(*arguments: str) -> None:
    if len(arguments) < 3:
        raise UserError("arguments: TASK REVISION REVISION ...")
    task, *revisions = arguments
    comparison = compare([read(task, revision) for revision in revisions])
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
