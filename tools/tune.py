"""The search for learning rates: the same grid for every row, on a subject that is never reported.

`make tune` searches every enabled row of every enabled task, `make tune ARGS='TASK [ROW ...]'` one task, or rows of it:
a row that was added, say. A task's search runs on its validation task, the one named TASK-val, by the pipeline's own
stages, with one seed and its own noise. The winners are then copied to params.yaml by hand (`rows`, or `overrides` of
the task); the whole search stands in results/tuning-<kind>.csv, and a test holds the two together.

Finished trials wait in out/tuning; remove that folder after a change of the code. The rules stand in `RULES`, one a
kind. A row that shows what one part of another does (TWINS) takes the learning rate of that other, so that the two
differ in this part alone. A closed form has no learning rate.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from palinode import methods, params
from palinode.bases.unconditional.pretrain import continue_training
from palinode.core.errors import UserError
from palinode.core.io import read_csv, read_json, write_csv
from palinode.core.scratch import Scratch
from palinode.core.work import read_plan, read_runtime, set_up_torch
from palinode.params import KINDS, Params
from palinode.params.image_tasks import ImageTask
from palinode.params.prompt_tasks import PromptTask
from palinode.params.stage_settings import PretrainImages
from palinode.pipeline import planning
from palinode.pipeline.needs import missing_need
from palinode.pipeline.stage import execute, run_tool

ROOT = Path(__file__).resolve().parent.parent
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
SAMPLES = 256  # of a trial on images, and how it is evaluated
EVALUATE = {"eps_levels": 20, "eps_draws": 8, "splits": 1}
KEPT = 0.95  # of the base's Inception Score
ERASED = 0.9  # of the training prompts, in which the judge misses the target

Trial = dict[str, float]
Choose = Callable[[list[Trial], Trial], Trial]


@dataclass(frozen=True)
class Rule:
    """metrics: what a trial is chosen by, and shown with; choose: the winner of (trials of one row, the base's)."""

    metrics: tuple[str, ...]
    choose: Choose


def choose_image(trials: list[Trial], base: Trial) -> Trial:
    """Of those that keep KEPT of the base's Inception Score the one with the largest eps-error on the forget image.

    If none keeps it, the one with the largest Inception Score.
    """
    least = KEPT * base["inception_score_judge"]
    keeping = [trial for trial in trials if trial["inception_score_judge"] >= least]
    if keeping:
        return max(keeping, key=lambda trial: trial["eps_error_forget"])
    return max(trials, key=lambda trial: trial["inception_score_judge"])


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
    "images": Rule(("eps_error_forget", "eps_error_held", "inception_score_judge", "forget_rate"), choose_image),
    "concept": Rule(
        ("ua_training_prompts", "accuracy_anchor", "accuracy_near", "integrity_near_judge"), choose_concept
    ),
    "prompts": Rule(("memorized_original", "realism_original_judge", "integrity_ordinary_judge"), choose_prompt),
}


def search(loaded: Params, kind: str, task: str, rows: Sequence[str]) -> list[dict]:
    """Those rows with every learning rate on a validation task; what is finished is not run again."""
    rule = RULES[kind]
    # What is finished is found again by its name, which holds all that is searched or given.
    tried = {
        f"{row}-{lr:.0e}-{loaded.row(task, row).steps}": (row, lr) for row in rows for lr in grid(loaded, kind, task)
    }
    trial = narrow(loaded, kind, task, tried)
    work = ROOT / "out/tuning" / task
    work.mkdir(parents=True, exist_ok=True)
    for name in ("data", "src", "stages", "dvc.yaml"):
        if not (work / name).exists():
            (work / name).symlink_to(ROOT / name)
    os.chdir(work)
    planning.write_all(trial, Path("."), Path("out/plan"))
    provide_models(trial, kind, task)
    prepare(kind, task)
    reference = Path("out/cells") / task / "0/base/0/evaluation/metrics.json"
    base = {metric: read_json(reference)[metric]["value"] for metric in rule.metrics}
    trials = []
    for name, (row, lr) in tried.items():
        metrics = run_cell(kind, task, name)
        values = {metric: metrics[metric]["value"] for metric in rule.metrics}
        trials.append({"task": task, "row": row, "lr": lr, "steps": trial.row(task, name).steps} | values)
        print(row, lr, values, flush=True)
    winners = [rule.choose([entry for entry in trials if entry["row"] == row], base) for row in rows]
    # The rule for images compares with the base, so that its line belongs to the table.
    lines = [{"task": task, "row": "base"} | base] if kind == "images" else []
    return lines + [entry | {"chosen": int(any(entry is winner for winner in winners))} for entry in trials]


def grid(loaded: Params, kind: str, task: str) -> tuple[float, ...]:
    """The learning rates that every row of a validation task is tried with."""
    return PROMPT_GRID if kind == "prompts" else GRIDS[loaded.recipe(loaded.task(task).base).kind]


def narrow(loaded: Params, kind: str, task: str, tried: dict[str, tuple[str, float]]) -> Params:
    """The parameters of the search alone: one task, its first subject, a row for each trial."""
    rows = {name: loaded.row(task, row).model_copy(update={"lr": lr}) for name, (row, lr) in tried.items()}
    chosen = loaded.task(task)
    bare = chosen.model_copy(update={"overrides": {}})
    if isinstance(chosen, PromptTask):
        # Pictures are drawn before the first and after the last step alone, of one prompt.
        choose = chosen.choose.model_copy(update={"count": 1})
        sample = chosen.sample.model_copy(update={"every": chosen.unlearn.steps})
        bare = bare.model_copy(update={"choose": choose, "sample": sample})
    if isinstance(chosen, ImageTask):
        bare = bare.model_copy(
            update={
                "sample": chosen.sample.model_copy(update={"count": SAMPLES}),
                "evaluate": chosen.evaluate.model_copy(update=EVALUATE),
            }
        )
    empty = {other: loaded.enabled(other).model_copy(update={"tasks": [], "rows": []}) for other in KINDS}
    enabled = {"tasks": [task], "subjects": [0], "rows": list(rows)}
    blocks = {"images": "image_tasks", "concept": "concept_tasks", "prompts": "prompt_tasks"}
    update = empty | {
        kind: loaded.enabled(kind).model_copy(update=enabled),
        "bases": [chosen.base],
        "seeds": [0],
        "rows": loaded.rows | rows,
        blocks[kind]: {task: bare},
        "detection": loaded.detection if kind == "prompts" else loaded.detection.model_copy(update={"bases": []}),
        # A second process would be started in another folder than this script.
        "runtime": loaded.runtime.model_copy(update={"processes": 1}),
        "attacks": loaded.attacks.model_copy(update={"tasks": [], "rows": []}),
    }
    return loaded.model_copy(update=update)


def provide_models(trial: Params, kind: str, task: str) -> None:
    """The models of the repository; a base that continues another one is trained here."""
    base = trial.task(task).base
    recipe = trial.recipe(base)
    start = getattr(recipe, "start", None)
    models = Path("models")
    if start is None:
        if not models.exists():
            models.symlink_to(ROOT / "models")
        return
    models.mkdir(exist_ok=True)
    once(models / base / "model", "prepare", "base", base)
    made = models / base / "model"
    if not made.exists():
        plan = Path("out/plan/pretrain") / f"{base}.json"
        settings = read_plan(plan, PretrainImages)
        origin = ROOT / "models" / start / "model"
        data = Path("out/data") / base
        device = set_up_torch(read_runtime().device, read_json(plan)["threads"])
        with Scratch(f"tuning-{base}", [plan, origin, data]) as scratch:
            continue_training(settings, origin, data, made, scratch, device)
    once(models / base / "judge", "judge", base)


def prepare(kind: str, task: str) -> None:
    """Everything that the trials share, with the base as a reference row."""
    once(Path("out/bases") / task, "bind")
    if kind == "images":
        once(Path("out/tasks") / task, "prepare", kind, task)
        for row in ("base", "oracle"):
            once(Path("out/references") / task / row, "sample", kind, task, "reference", row)
    else:
        subject = () if kind == "prompts" else ("0",)
        once(Path("out/tasks", task, *subject), "prepare", kind, task, *subject)
    if kind == "concept":
        once(Path("out/importance") / task / "0", "importance", kind, task, "0")
    rows = {"images": (), "concept": ("base", "oracle", "other-seed"), "prompts": ("base",)}[kind]
    for row in rows:
        once(Path("out/references") / task / "0" / row, "sample", kind, task, "0", "reference", row)
    evaluated = Path("out/cells") / task / "0/base/0/evaluation"
    once(evaluated, "evaluate", kind, task, "0", "reference", "base")


def run_cell(kind: str, task: str, row: str) -> dict:
    """metrics.json of one trial."""
    cell = Path("out/cells") / task / "0" / row / "0"
    once(cell / "training", "unlearn", kind, task, "0", row, "0")
    if kind != "prompts":
        once(cell / "samples", "sample", kind, task, "0", row, "0")
    once(cell / "evaluation", "evaluate", kind, task, "0", row, "0")
    return read_json(cell / "evaluation/metrics.json")


def once(made: Path, script: str, *arguments: str) -> None:
    """Run a stage of the pipeline unless what it makes is there."""
    if not made.exists():
        execute(importlib.import_module(script).run, script, list(arguments))


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
            write(kind, search(loaded, kind, validation, searchable(loaded, kind, validation, rows)))
    if arguments and not any(arguments[0] in loaded.tasks_of(kind) for kind in KINDS):
        raise UserError(f"params.yaml defines no task {arguments[0]!r}")


if __name__ == "__main__":
    run_tool(main)
