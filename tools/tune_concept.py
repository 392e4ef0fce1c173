"""The search for the learning rates of concept unlearning: the same grid for every row, on a target never reported.

Run with `make tune-concept`, once the base models are there. For the validation task of each enabled task (its name
with `-val`) every row of `concept.rows` is trained with each learning rate of the grid, by the pipeline's own stages,
with one seed, and evaluated on its own noise. A row that shows what one part of another does (TWINS) takes the learning
rate of that other, so that the two differ in this part alone: fine-tuning is EraseDiff without its forget loss. A
closed form has no learning rate. Rule: of the configurations that miss the target in at least 90 % of the given prompts
the one with the most integrity on near things; if none does, the one that misses it most often. The winners stand in
params.yaml (`overrides` of the task), the whole search in results/tuning-concept.csv; a test holds the two together.
`make tune-concept ARGS='TASK ROW ...'` searches one task, and rows of it, alone: a row that was added, say.
"""

import csv
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from palinode import params, plan, stage
from palinode.errors import UserError
from palinode.io import read_json, write_csv

GRID = {  # by kind of base
    "class": (5e-5, 1e-4, 3e-4, 1e-3, 1e-5, 2e-5),  # the last two were added for all rows: most winners were the first
    "text": (5e-5, 1e-4, 3e-4, 1e-3, 2e-5),  # the last was added for all rows, for the same reason
}
ERASED = 0.9
TWINS = {
    "finetune": "erasediff-rl", "erasediff-rl-cosine": "erasediff-rl", "erasediff-rl-fixed": "erasediff-rl",
    "doco-none": "doco", "doco-sum": "doco", "doco-repo": "doco", "anchored-twin": "anchored",
}  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/tuning-concept.csv"
METRICS = ("ua_t0", "right_anchor", "right_near", "integrity_near_judge")
COLUMNS = ("task", "row", "lr", "steps", *METRICS, "chosen")


def grid(loaded: params.Params, task: str) -> tuple[float, ...]:
    """The learning rates that every row of a validation task is tried with."""
    return GRID["text" if loaded.concept_tasks[task].base in loaded.text_bases else "class"]


def search(loaded: params.Params, task: str, chosen: Sequence[str]) -> list[dict]:
    """Those rows with every learning rate on a validation task; finished cells are not run again."""
    work = workplace(task)
    searched = [row for row in chosen if row not in TWINS and loaded.rows[row].steps > 1]
    tried = {f"{row}-{i}": (row, lr) for row in searched for i, lr in enumerate(grid(loaded, task))}
    rows = {name: loaded.row(task, row).model_copy(update={"lr": lr}) for name, (row, lr) in tried.items()}
    family = loaded.concept.model_copy(update={"tasks": [task], "rows": list(rows)})
    bare = {task: loaded.concept_tasks[task].model_copy(update={"overrides": {}})}
    trial = loaded.model_copy(update={"concept": family, "rows": loaded.rows | rows, "concept_tasks": bare})
    plan.write_all(trial, ROOT, work / "out/plan")
    os.chdir(work)
    once(Path("out/data") / task, "prepare_concept", task)
    once(Path("out/importance") / task, "importance", task)
    for role in ("base", "oracle", "other"):
        once(stage.cell(task, role, 0) / "samples", "sample_concept", task, role, "0")
    trials = []
    for name, (row, lr) in tried.items():
        cell = stage.cell(task, name, 0)
        once(cell / "cost.json", "unlearn_concept", task, name, "0")
        once(cell / "samples", "sample_concept", task, name, "0")
        once(cell / "evaluation", "evaluate_concept", task, name, "0")
        found = read_json(cell / "evaluation/metrics.json")
        values = {metric: found[metric]["value"] for metric in METRICS}
        trials.append({"task": task, "row": row, "lr": lr, "steps": rows[name].steps} | values)
        print(row, lr, values, flush=True)
    winners = [choose([one for one in trials if one["row"] == row]) for row in searched]
    return [one | {"chosen": int(any(one is winner for winner in winners))} for one in trials]


def workplace(task: str) -> Path:
    """The folder in which a validation task's stages run."""
    work = ROOT / "out/tuning" / task
    (work / "out").mkdir(parents=True, exist_ok=True)
    for name in ("models", "data"):
        if not (work / name).exists():
            (work / name).symlink_to(ROOT / name)
    return work


def once(made: Path, script: str, *arguments: str) -> None:
    """Run a stage of the pipeline unless what it makes is there."""
    if not made.exists():
        importlib.import_module(script).run(*arguments)


def write(path: Path, columns: tuple[str, ...], lines: list[dict]) -> None:
    """Searches of some rows as CSV by task, six digits a number; others keep the lines they have."""
    searched = {(line["task"], line["row"]) for line in lines}
    if path.exists():
        with open(path, newline="") as handle:
            lines = [line for line in csv.DictReader(handle) if (line["task"], line["row"]) not in searched] + lines
    lines.sort(key=lambda line: line["task"])
    write_csv(path, lines, columns)


def choose(trials: list[dict]) -> dict:
    """The winner among one row's trials, by the rule above."""
    erased = [one for one in trials if one["ua_t0"] >= ERASED]
    if erased:
        return max(erased, key=lambda one: one["integrity_near_judge"])
    return max(trials, key=lambda one: one["ua_t0"])


def prepare() -> None:
    """Let stages be imported. UserError when what is searched with is not committed."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src", "stages", "params.yaml"], cwd=ROOT).returncode:
        raise UserError("commit src, stages and params.yaml first, so that the search can be traced to a commit")
    sys.path.insert(0, str(ROOT / "stages"))


def main(*asked: str) -> None:
    """Run the search and write results/tuning-concept.csv, where what is not searched keeps what it has; the winners
    are then copied to params.yaml by hand. asked: a task and rows of it; without them what is enabled."""
    prepare()
    loaded = params.load()
    tasks, rows = asked[:1] or loaded.concept.tasks, asked[1:] or loaded.concept.rows
    if unknown := ({f"{task}-val" for task in tasks} - loaded.concept_tasks.keys()) | (set(rows) - loaded.rows.keys()):
        raise UserError(f"params.yaml defines no {', '.join(sorted(unknown))}")
    write(OUT, COLUMNS, [line for task in tasks for line in search(loaded, f"{task}-val", rows)])


if __name__ == "__main__":
    stage.main(main)
