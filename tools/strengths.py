"""Concept rows compared at equal forgetting, from runs of several strengths: `make strengths ARGS='TASK REVISION ...'`.

    dvc exp run -n half -S concept.strength=0.5
    dvc exp run -n double -S concept.strength=2 -S 'concept.rows=[concept-ablation,doco]'
    make strengths ARGS='emoji-object HEAD half double'

A revision is an experiment, a commit or a branch whose cells are in DVC's cache; a row takes part with all strengths at
which it was run. Between neighbouring strengths, what is forgotten and what is kept are taken as linear; a row is
compared where its UA on the given prompts first crosses LEVEL, in the estimates and in each paired bootstrap replicate.
Writes results/strengths/TASK.json and TASK.png, which the report and docs/concepts.md show.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palinode import io, params
from palinode.errors import UserError
from palinode.report import collect, plots
from palinode.report.strengths import FOLDER, FORGOT, KEPT, caption, panels, table
from palinode.stage import main

LEVEL = 0.9  # fixed before any sweep was run; learning rates are chosen at the same level
RANKED = "integrity_near_judge"
CODE = ("src", "stages", "dvc.yaml")


@dataclass(frozen=True)
class Run:
    """One revision: its strength, and the unlearning rows of the task in it."""

    strength: float
    seeds: list[int]
    rows: list[collect.Row]


def read(task: str, revision: str) -> Run:
    """The evaluated cells of a task at a revision, from DVC's cache. UserError when they are not there, or other code
    made them than the commit checked out."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCM, RevError, resolve_rev

    try:
        commit = resolve_rev(SCM("."), revision)
        files = DVCFileSystem(".", rev=commit)
    except (DvcException, RevError) as error:
        raise UserError(f"{revision}: {error}") from None
    if subprocess.run(["git", "diff", "--quiet", commit, "HEAD", "--", *CODE]).returncode:
        raise UserError(f"{revision} did not run the code of the commit checked out")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def fetch(path: str) -> Path:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            try:
                files.get(path, str(root / path), recursive=True)
            except (OSError, DvcException) as error:
                raise UserError(f"{revision}: {path} is not in DVC's cache ({error})") from None
            return root / path

        ran, chosen = params.load(fetch("params.yaml")), io.read_json(fetch("out/plan/report.json"))["settings"]
        if task not in chosen["tasks"] or chosen["families"][task] != "concept":
            raise UserError(f"{revision} has no concept task {task!r}")
        chosen |= {"tasks": {task: chosen["tasks"][task]}, "attacked": []}
        cells = [(row, 0) for row in collect.REFERENCE_ROWS["concept"]]
        cells += [(row, seed) for row in chosen["tasks"][task] for seed in chosen["seeds"]]
        for row, seed in cells:
            fetch(f"out/cells/{task}/{row}/{seed}/evaluation")
        found = collect.collect(chosen, root)[0]
        return Run(ran.concept.strength, chosen["seeds"], [row for row in found.rows if not row.reference])


def at_level(forgot: np.ndarray, kept: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """`kept` where `forgot` first reaches `level`, linear between neighbours -> [R].

    forgot: [S, R], by rising strength; kept: the same, or [S, 1]. NaN where the level is passed at the first strength
    already, or at none.
    """
    reached = (forgot >= level).argmax(0)
    upper = np.clip(reached, min(1, len(forgot) - 1), None)
    (f_0, f_1), (k_0, k_1) = ([np.take_along_axis(values, i[None], 0)[0] for i in (upper - 1, upper)]
                              for values in (forgot, np.broadcast_to(kept, forgot.shape)))  # fmt: skip
    crossed = (f_0 < level) & (f_1 >= level)
    share = np.divide(level - f_0, f_1 - f_0, out=np.full(len(f_0), np.nan), where=crossed)
    return k_0 + share * (k_1 - k_0)


def curves(runs: list[Run]) -> dict[str, dict[str, np.ndarray]]:
    """row -> metric -> [S, 1 + R], by rising strength: the estimate, then its paired replicates.

    A metric of KEPT other than RANKED is left out where a row has none: styles have no far things.
    """
    if len({tuple(run.seeds) for run in runs}) > 1:
        raise UserError("the revisions were run with different seeds")
    made = {}
    for name in dict.fromkeys(row.name for run in runs for row in run.rows):
        found = {run.strength: row for run in runs for row in run.rows if row.name == name}
        if len(found) < sum(name in {row.name for row in run.rows} for run in runs):
            raise UserError(f"{name}: two revisions have the same strength")
        made[name] = {"strength": np.array([[strength] for strength in sorted(found)])}
        for metric in (FORGOT, *KEPT):
            items = [found[strength].estimate(metric) for strength in sorted(found)]
            if all(item.replicates is not None for item in items):
                made[name][metric] = np.array([[item.value, *item.replicates] for item in items])
            elif metric in (FORGOT, RANKED):
                raise UserError(f"{name}: {metric} is absent: {items[0].reason or 'it has no replicates'}")
    shared = [metric for metric in ("strength", FORGOT, *KEPT) if all(metric in of for of in made.values())]
    return {name: {metric: of[metric] for metric in shared} for name, of in made.items()}


def compare(runs: list[Run]) -> dict:
    """What is written: {"level", "seeds", "points": [{row, strength, metric: value}], "matched": [{row, strengths,
    reached, metric: {value, lo, hi}, behind}]}.

    reached: share of the replicates in which the row crosses the level between its strengths; behind: of those where
    both do, the share in which the row that keeps most is ahead. Rows that do not cross it in the estimates have the
    reason `outside` instead.
    """
    made, matched, ranked = curves(runs), [], {}
    points = [{"row": row, "strength": float(strength)} | {metric: values[i, 0] for metric, values in of.items()}
              for row, of in made.items() for i, strength in enumerate(of["strength"][:, 0])]  # fmt: skip
    for row, of in made.items():
        entry = {"row": row, "strengths": [float(strength) for strength in of["strength"][:, 0]]}
        crossing = {metric: at_level(of[FORGOT], of[metric]) for metric in of if metric != FORGOT}
        if np.isnan(crossing["strength"][0]):
            ends = " to ".join(dict.fromkeys(f"{share:.0%}" for share in of[FORGOT][[0, -1], 0]))
            entry["outside"] = f"UA {ends}, not across the level"
        else:
            entry["reached"] = float(np.mean(~np.isnan(crossing["strength"][1:])))
            for metric, (value, *replicates) in crossing.items():
                lo, hi = np.nanquantile(replicates, [0.025, 0.975])
                entry[metric] = {"value": value, "lo": lo, "hi": hi}
            ranked[row] = crossing[RANKED]
        matched.append(entry)
    best = max(ranked, key=lambda row: ranked[row][0], default=None)
    for entry in (entry for entry in matched if entry["row"] in ranked and entry["row"] != best):
        ahead = ranked[best][1:] - ranked[entry["row"]][1:]
        entry["behind"] = float(np.mean(ahead[~np.isnan(ahead)] > 0))
    return {"level": LEVEL, "seeds": runs[0].seeds, "points": points, "matched": matched}


def markdown(found: dict, task: str) -> str:
    """The comparison as docs/concepts.md shows it."""
    heads, rows = table(found)
    lines = [f"**Task `{task}`.** {caption(found)}", "", f"![{task} by strength](../{FOLDER / task}.png)", "",
             "| " + " | ".join(heads) + " |", "|---" * 2 + "|---:" * (len(heads) - 2) + "|"]  # fmt: skip
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def run(*arguments: str) -> None:
    if len(arguments) < 3:
        raise UserError("arguments: TASK REVISION REVISION ...")
    task, *revisions = arguments
    found = compare([read(task, revision) for revision in revisions])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    FOLDER.mkdir(parents=True, exist_ok=True)
    io.write_json(FOLDER / f"{task}.json", {"commit": commit, **found})
    with io.atomic(FOLDER / f"{task}.png") as temporary, panels(found) as fig:
        temporary.write_bytes(plots.png(fig))


if __name__ == "__main__":
    main(run)
