"""The search for the learning rates of the family prompts: the same grid for every row, on prompts never reported.

Run with `make tune-prompts`, once the base models and what `detect` found are there. For the validation task of each
enabled task (its name with `-val`) every row of its `overrides` forgets one prompt with each learning rate of the grid,
by the pipeline's own stages, with one seed; pictures are drawn before the first and after the last step alone. Rule: of
the configurations that leave no memorised picture under the original prompt the one with the most integrity on ordinary
prompts; if none does, the one that leaves fewest. The winners stand in params.yaml (`overrides` of the task), the whole
search in results/tuning-prompts.csv; a test holds the two together. `make tune-prompts ARGS='TASK ROW ...'` searches
one task, and rows of it, alone.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from tune_concept import ROOT, once, prepare, workplace, write

from palinode import params, plan, stage
from palinode.errors import UserError
from palinode.io import read_json

GRID = (1e-5, 2e-5, 3e-5, 1e-4, 3e-4)
OUT = ROOT / "results/tuning-prompts.csv"
METRICS = ("memorised_original", "realism_original_judge", "integrity_ordinary_judge")
COLUMNS = ("task", "row", "lr", *METRICS, "chosen")


def search(loaded: params.Params, task: str, searched: Sequence[str]) -> list[dict]:
    """Those rows with every learning rate on a validation task; finished cells are not run again."""
    chosen = loaded.prompt_tasks[task]
    tried = {f"{row}-{i}": (row, lr) for row in searched for i, lr in enumerate(GRID)}
    rows = {name: loaded.row(task, row).model_copy(update={"lr": lr}) for name, (row, lr) in tried.items()}
    bare = chosen.model_copy(update={
        "overrides": {}, "choose": chosen.choose.model_copy(update={"count": 1}),
        "sample": chosen.sample.model_copy(update={"every": chosen.unlearn.steps}),
    })  # fmt: skip
    family = loaded.prompts.model_copy(update={"tasks": [task], "rows": list(rows)})
    trial = loaded.model_copy(update={"prompts": family, "rows": loaded.rows | rows, "prompt_tasks": {task: bare}})
    work = workplace(task)
    plan.write_all(trial, ROOT, work / "out/plan")
    os.chdir(work)
    once(Path("out/data") / task, "split", task)
    trials = []
    for name, (row, lr) in tried.items():
        cell = stage.cell(task, name, 0)
        once(cell / "cost.json", "unlearn_prompts", task, name, "0")
        if (cell / "evaluation/absent.txt").exists():
            raise UserError(f"{task}: {(cell / 'evaluation/absent.txt').read_text().strip()}")
        found = read_json(cell / "evaluation/metrics.json")
        trials.append({"task": task, "row": row, "lr": lr} | {metric: found[metric]["value"] for metric in METRICS})
        print(trials[-1], flush=True)
    winners = [choose([one for one in trials if one["row"] == row]) for row in searched]
    return [one | {"chosen": int(any(one is winner for winner in winners))} for one in trials]


def choose(trials: list[dict]) -> dict:
    """The winner among one row's trials, by the rule above."""
    forgot = [one for one in trials if one["memorised_original"] == 0]
    if forgot:
        return max(forgot, key=lambda one: one["integrity_ordinary_judge"])
    return min(trials, key=lambda one: one["memorised_original"])


def main(*asked: str) -> None:
    """Run the search and write results/tuning-prompts.csv, where what is not searched keeps what it has; the winners
    are then copied to params.yaml by hand. asked: a task and rows of it; without them what is enabled."""
    prepare()
    loaded = params.load()
    tasks = [f"{task}-val" for task in asked[:1] or loaded.prompts.tasks]
    if unknown := (set(tasks) - loaded.prompt_tasks.keys()) | (set(asked[1:]) - loaded.rows.keys()):
        raise UserError(f"params.yaml defines no {', '.join(sorted(unknown))}")
    lines = [line for task in tasks for line in search(loaded, task, asked[1:] or loaded.prompt_tasks[task].overrides)]
    write(OUT, COLUMNS, lines)


if __name__ == "__main__":
    stage.main(main)
