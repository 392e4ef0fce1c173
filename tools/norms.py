"""The constant norm at which SISS's rows hold the forget gradient: measured once a task, on its validation task.

`make norms` measures every enabled task of the kinds images and prompts, `make norms ARGS=TASK` one. The norm is a
tenth of the mean gradient norm of naive deletion over its first 20 steps on TASK-val, whose subject is never reported.
It is copied to params.yaml by hand (`overrides` of the task). results/constant-norms.json holds what was measured, and
a test holds the two together. The tasks with the papers' own settings take the official code's constants instead.
"""

import shutil
import sys
from pathlib import Path

import trial_runs

from palinode import params
from palinode.core.errors import UserError
from palinode.core.io import read_csv, read_json, write_json
from palinode.params import Params
from palinode.pipeline import planning
from palinode.pipeline.stage import run_tool

ROOT = trial_runs.ROOT
RESULTS = ROOT / "results/constant-norms.json"
KINDS = ("images", "prompts")
ROW = "naive"
STEPS = 20
SHARE = 0.1  # of the naive term's gradient norm: the SISS paper's "10 %"


def measure(loaded: Params, kind: str, task: str) -> dict[str, object]:
    """The constant norm of a validation task, and what it is made of."""
    trial_runs.enter(task)
    row = loaded.row(task, ROW).model_copy(update={"steps": STEPS})
    trial = trial_runs.narrow(loaded, kind, task, {ROW: row})
    planning.write_all(trial, Path("."), Path("out/plan"))
    trial_runs.provide_models(trial, kind, task)
    trial_runs.prepare(kind, task)
    cell = Path("out/cells") / task / "0" / ROW / "0"
    shutil.rmtree(cell, ignore_errors=True)
    trial_runs.once(cell / "training", "unlearn", kind, task, "0", ROW, "0")
    lines = read_csv(cell / "training/training.csv")
    if [int(line["step"]) for line in lines[:STEPS]] != list(range(STEPS)):
        raise UserError(f"{task}: not all of the first {STEPS} steps were logged")
    norms = [float(line["norm_retain"]) for line in lines[:STEPS]]
    mean = round(sum(norms) / STEPS, 3)
    return {"steps": STEPS, "mean_norm": mean, "norm": float(f"{SHARE * mean:.2g}")}


def main(*arguments: str) -> None:
    """arguments: tasks; without them all that are enabled."""
    sys.path.insert(0, str(ROOT / "stages"))
    loaded = params.load(ROOT / "params.yaml")
    unknown = [task for task in arguments if not any(task in loaded.tasks_of(kind) for kind in KINDS)]
    if unknown:
        raise UserError(f"params.yaml defines no task of images or prompts called {unknown[0]!r}")
    measured = read_json(RESULTS) if RESULTS.exists() else {}
    for kind in KINDS:
        for task in arguments or loaded.enabled(kind).tasks:
            if task in loaded.tasks_of(kind):
                validation = f"{task}-val"
                measured[validation] = measure(loaded, kind, validation)
                print(validation, measured[validation], flush=True)
    write_json(RESULTS, measured)


if __name__ == "__main__":
    run_tool(main)
