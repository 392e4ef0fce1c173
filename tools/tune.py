"""The search for learning rates: the same grid for every row, on a subject that is never reported.

`make tune` searches every enabled row of every enabled task, `make tune ARGS='TASK [ROW ...]'` one task, or rows of it:
a row that was added, say. A task's search runs on its validation task, the one named TASK-val, by the pipeline's own
stages, with one seed and its own noise. The winners are then copied to params.yaml by hand (`rows`, or `overrides` of
the task); the whole search stands in results/tuning-<kind>.csv, and a test holds the two together.

Tasks of the kind images follow the SISS paper's protocol: one learning rate for all rows, chosen by those that keep
quality in the paper (PROTOCOL_ROWS). No row is tuned by itself.

Finished trials wait in out/tuning; remove that folder after a change of the code. The rules stand in `RULES`, one a
kind. A row that shows what one part of another does (TWINS) takes the learning rate of that other, so that the two
differ in this part alone. A closed form has no learning rate.
"""

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trial_runs

from palinode import methods, params
from palinode.core.errors import UserError
from palinode.core.io import read_csv, read_json, write_csv
from palinode.params import KINDS, Params, Row
from palinode.pipeline import planning
from palinode.pipeline.needs import missing_need
from palinode.pipeline.stage import run_tool

ROOT = trial_runs.ROOT
TWINS = {
    "finetune": "erasediff-rl",
    "erasediff-rl-cosine": "erasediff-rl",
    "erasediff-rl-fixed": "erasediff-rl",
    "doco-none": "doco",
    "doco-sum": "doco",
    "doco-repo": "doco",
    "anchored-twin": "anchored",
}
# The last ones of a grid were added for all of its rows, because most winners were the lowest.
GRIDS = {
    "unconditional": (6e-5, 2e-4, 6e-4, 2e-3, 2e-5),
    "class": (5e-5, 1e-4, 3e-4, 1e-3, 1e-5, 2e-5),
    "text": (5e-5, 1e-4, 3e-4, 1e-3, 2e-5),
}
PROMPT_GRID = (1e-5, 2e-5, 3e-5, 1e-4, 3e-4)
KEPT = 0.95  # of the base's Inception Score
PROTOCOL_ROWS = ("naive", "siss-0", "siss-05", "siss-no-is")  # the rows of the paper's table that keep quality
ERASED = 0.9  # of the training prompts, in which the judge misses the target

Trial = dict[str, float]
Choose = Callable[[list[Trial], Trial], Trial]


@dataclass(frozen=True)
class Rule:
    """metrics: what a trial is chosen by, and shown with; choose: the winner of (trials of one row, the base's).

    choose is None where all rows have one learning rate, by `choose_protocol`.
    """

    metrics: tuple[str, ...]
    choose: Choose | None


def choose_protocol(trials: list[Trial], base: Trial) -> float:
    """The learning rate of all rows, from the trials of PROTOCOL_ROWS: the largest at which each keeps KEPT.

    That is of the base's Inception Score. If there is none, the one at which the worst of them keeps most.
    """
    kept: dict[float, float] = {}
    for trial in trials:
        share = trial["inception_score_judge"] / base["inception_score_judge"]
        kept[trial["lr"]] = min(share, kept.get(trial["lr"], share))
    keeping = [lr for lr, share in kept.items() if share >= KEPT]
    return max(keeping) if keeping else max(kept, key=lambda lr: kept[lr])


def choose_concept(trials: list[Trial], base: Trial) -> Trial:
    """Of those that miss the target in ERASED of the training prompts the one with the most integrity on near things.

    If none does, the one that misses it most often.
    """
    erased = [trial for trial in trials if trial["ua_training_prompts"] >= ERASED]
    if erased:
        return max(erased, key=lambda trial: trial["integrity_near_judge"])
    return max(trials, key=lambda trial: trial["ua_training_prompts"])


def choose_prompt(trials: list[Trial], base: Trial) -> Trial:
    """Of those that leave no memorized picture under the original prompt the one with the most integrity.

    Integrity is that of ordinary prompts. If none does, the one that leaves fewest.
    """
    clean = [trial for trial in trials if trial["memorized_original"] == 0]
    if clean:
        return max(clean, key=lambda trial: trial["integrity_ordinary_judge"])
    return min(trials, key=lambda trial: trial["memorized_original"])


RULES = {
    "images": Rule(("eps_error_forget", "eps_error_held", "inception_score_judge", "forget_rate"), None),
    "concept": Rule(
        ("ua_training_prompts", "accuracy_anchor", "accuracy_near", "integrity_near_judge"), choose_concept
    ),
    "prompts": Rule(("memorized_original", "realism_original_judge", "integrity_ordinary_judge"), choose_prompt),
}


def search(loaded: Params, kind: str, task: str, rows: Sequence[str]) -> list[dict]:
    """Those rows with every learning rate on a validation task; what is finished is not run again."""
    rule = RULES[kind]
    # What is finished is found again by its name, which holds all that is searched or given.
    tried = {name_trial(loaded.row(task, row), row, lr): (row, lr) for row in rows for lr in grid(loaded, kind, task)}
    settings = {name: loaded.row(task, row).model_copy(update={"lr": lr}) for name, (row, lr) in tried.items()}
    trial = trial_runs.narrow(loaded, kind, task, settings)
    trial_runs.enter(task)
    planning.write_all(trial, Path("."), Path("out/plan"))
    trial_runs.provide_models(trial, kind, task)
    trial_runs.prepare(kind, task)
    draw_references(kind, task)
    reference = Path("out/cells") / task / "0/base/0/evaluation/metrics.json"
    base = {metric: read_json(reference)[metric]["value"] for metric in rule.metrics}
    results = []
    for name, (row, lr) in tried.items():
        metrics = run_cell(kind, task, name)
        values = {metric: metrics[metric]["value"] for metric in rule.metrics}
        results.append({"task": task, "row": row, "lr": lr, "steps": trial.row(task, name).steps} | values)
        print(row, lr, values, flush=True)
    # The rule for images compares with the base, so that its line belongs to the table.
    lines = [{"task": task, "row": "base"} | base] if kind == "images" else []
    return lines + mark_winners(results, base, rule)


def mark_winners(trials: list[dict], base: Trial, rule: Rule) -> list[dict]:
    """The trials of some rows, each with `chosen`: 1 for the one whose learning rate its row takes, else 0."""
    if rule.choose is None:
        lr = choose_protocol([trial for trial in trials if trial["row"] in PROTOCOL_ROWS], base)
        return [trial | {"chosen": int(trial["lr"] == lr)} for trial in trials]
    rows = dict.fromkeys(trial["row"] for trial in trials)
    winners = [rule.choose([trial for trial in trials if trial["row"] == row], base) for row in rows]
    return [trial | {"chosen": int(any(trial is winner for winner in winners))} for trial in trials]


def name_trial(settings: Row, row: str, lr: float) -> str:
    """A row's trial with a learning rate."""
    given = json.dumps([settings.options, settings.trainable, settings.clipped], sort_keys=True)
    return f"{row}-{lr:.0e}-{settings.steps}-{zlib.crc32(given.encode()):08x}"


def grid(loaded: Params, kind: str, task: str) -> tuple[float, ...]:
    """The learning rates that every row of a validation task is tried with."""
    return PROMPT_GRID if kind == "prompts" else GRIDS[loaded.recipe(loaded.task(task).base).kind]


def draw_references(kind: str, task: str) -> None:
    """What the trials are compared with, and the base as a row."""
    if kind == "images":
        for row in ("base", "oracle"):
            trial_runs.once(Path("out/references") / task / row, "sample", kind, task, "reference", row)
    rows = {"images": (), "concept": ("base", "oracle", "other-seed"), "prompts": ("base",)}[kind]
    for row in rows:
        trial_runs.once(Path("out/references") / task / "0" / row, "sample", kind, task, "0", "reference", row)
    evaluated = Path("out/cells") / task / "0/base/0/evaluation"
    trial_runs.once(evaluated, "evaluate", kind, task, "0", "reference", "base")


def run_cell(kind: str, task: str, row: str) -> dict:
    """metrics.json of one trial."""
    cell = Path("out/cells") / task / "0" / row / "0"
    trial_runs.once(cell / "training", "unlearn", kind, task, "0", row, "0")
    if kind != "prompts":
        trial_runs.once(cell / "samples", "sample", kind, task, "0", row, "0")
    trial_runs.once(cell / "evaluation", "evaluate", kind, task, "0", row, "0")
    return read_json(cell / "evaluation/metrics.json")


def write(kind: str, lines: list[dict]) -> None:
    """Searches of some rows, by task; rows that were not searched keep the lines that they have."""
    path = ROOT / f"results/tuning-{kind}.csv"
    columns = ("task", "row", "lr", "steps", *RULES[kind].metrics, "chosen")
    searched = {(line["task"], line["row"]) for line in lines}
    if path.exists():
        lines = [line for line in read_csv(path) if (line["task"], line["row"]) not in searched] + lines
    write_csv(path, sorted(lines, key=lambda line: line["task"]), columns)


def searchable(loaded: Params, kind: str, task: str, rows: Sequence[str]) -> list[str]:
    """Rows with a learning rate of their own that can run on the task."""
    chosen = [row for row in rows if row not in TWINS and missing_need(loaded, kind, task, row) is None]
    return [row for row in chosen if not methods.find(loaded.rows[row].method).closed_form]


def main(*arguments: str) -> None:
    """arguments: a task and rows of it; without them all that is enabled."""
    changed = ["git", "diff", "--quiet", "HEAD", "--", "src", "stages", "params.yaml"]
    if subprocess.run(changed, cwd=ROOT, check=False).returncode:
        raise UserError("commit src, stages and params.yaml first, so that the search can be traced to a commit")
    sys.path.insert(0, str(ROOT / "stages"))
    loaded = params.load(ROOT / "params.yaml")
    for kind in KINDS:
        enabled = loaded.enabled(kind)
        tasks = [task for task in (arguments[:1] or enabled.tasks) if task in loaded.tasks_of(kind)]
        rows = arguments[1:] or enabled.rows
        for task in tasks:
            validation = f"{task}-val"
            unknown = ({validation} - loaded.tasks_of(kind).keys()) | (set(rows) - loaded.rows.keys())
            if unknown:
                raise UserError(f"params.yaml defines no {', '.join(sorted(unknown))}")
            if kind == "images" and arguments[1:]:
                raise UserError(f"{task}: rows that forget images share one learning rate: search the task as a whole")
            chosen = PROTOCOL_ROWS if kind == "images" else searchable(loaded, kind, validation, rows)
            write(kind, search(loaded, kind, validation, chosen))
    if arguments and not any(arguments[0] in loaded.tasks_of(kind) for kind in KINDS):
        raise UserError(f"params.yaml defines no task {arguments[0]!r}")


if __name__ == "__main__":
    run_tool(main)
