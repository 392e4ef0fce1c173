"""A validation task by itself, in a folder of its own below out/tuning: what `tune` and `norms` run their trials in."""

import importlib
import os
from pathlib import Path

from palinode.bases.unconditional.pretrain import continue_training
from palinode.core.io import read_json
from palinode.core.scratch import Scratch
from palinode.core.work import read_plan, read_runtime, set_up_torch
from palinode.params import KINDS, Params, Row
from palinode.params.image_tasks import ImageTask
from palinode.params.prompt_tasks import PromptTask
from palinode.params.stage_settings import PretrainImages
from palinode.pipeline.stage import execute

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 256  # of a trial on images, and how it is evaluated
EVALUATE = {"eps_levels": 20, "eps_draws": 8, "splits": 1}


def enter(name: str) -> Path:
    """Make out/tuning/<name> a place where stages run, and go there."""
    work = ROOT / "out/tuning" / name
    work.mkdir(parents=True, exist_ok=True)
    for link in ("data", "src", "stages", "dvc.yaml"):
        if not (work / link).exists():
            (work / link).symlink_to(ROOT / link)
    os.chdir(work)
    return work


def narrow(loaded: Params, kind: str, task: str, rows: dict[str, Row]) -> Params:
    """The parameters of the search alone: one task, its first subject, a row for each trial."""
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
        "counts": loaded.counts.model_copy(update={"tasks": [], "rows": []}),
    }
    return loaded.model_copy(update=update)


def provide_models(trial: Params, kind: str, task: str) -> None:
    """The models of the repository; a base that continues another one is trained, judged and checked here."""
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
        runtime = read_runtime()
        device = set_up_torch(runtime.device, read_json(plan)["threads"], runtime.deterministic)
        with Scratch(f"tuning-{base}", [plan, origin, data]) as scratch:
            continue_training(settings, origin, data, made, scratch, device)
    once(models / base / "judge", "judge", base)
    once(models / base / "gate", "gate", base)
    once(models / base / "second-judge", "second_judge", base)


def prepare(kind: str, task: str) -> None:
    """Everything that the trials train on."""
    once(Path("out/bases") / task, "bind")
    subject = ("0",) if kind == "concept" else ()
    once(Path("out/tasks", task, *subject), "prepare", kind, task, *subject)
    if kind == "concept":
        once(Path("out/importance") / task / "0", "importance", kind, task, "0")


def once(made: Path, script: str, *arguments: str) -> None:
    """Run a stage of the pipeline unless what it makes is there."""
    if not made.exists():
        execute(importlib.import_module(script).run, script, list(arguments))
