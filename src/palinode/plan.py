"""What each stage will do: one small file per stage with the settings it reads and the code it runs.

Every stage depends on its own file in out/plan/, and reads its settings from there, so what a stage sees is exactly
what DVC tracks: editing one row's learning rate or one method's code changes the files of its cells and of nothing
else, and the difference between two versions of a file says why a stage runs again.
"""

import itertools
from pathlib import Path

from palinode import fingerprint
from palinode.errors import UserError
from palinode.io import write_json
from palinode.params import Params, Training

NEEDS = {"anchor": "an anchor", "states": "states of sampling under a target's captions", "saliency": "a saliency map",
         "fisher": "Fisher information"}  # fmt: skip
OFFERS = {"data": (), "prompts": ("anchor", "states"), "concept": tuple(NEEDS)}
FAMILIES = {"unlearn": "data", "unlearn_concept": "concept", "unlearn_prompts": "prompts"}  # script -> whose rows


def write_all(params: Params, root: Path, folder: Path) -> None:
    """Write the plan of every stage of `params` into `folder`.

    UserError when a row's method or options, a detector or the list of prompts for it are wrong.
    """
    from palinode import methods

    if params.detection.bases:
        _check_detection(params, root)
    for name in params.concept.tasks:
        if params.concept_tasks[name].prompts is not None:
            _check_prompts(params, name, root)
    for name, script, extra, settings in _stages(params):
        if script in FAMILIES:
            row, family = name.split("/")[1], FAMILIES[script]
            method = methods.load(settings["method"], settings["options"], f"rows.{row}.options: ")
            _check_needs(family, row, method)
            if family == "data" and params.row(name.split("/")[0].removeprefix("unlearn-"), row).trainable != "all":
                raise UserError(f"data.rows: {row!r} trains some weights only, which the family `data` does not offer")
        code = fingerprint.of(root / "stages" / f"{script}.py", root / "src", extra) if script else {}
        write_json(folder / f"{name.replace('/', '-')}.json", {"settings": settings, "code": code})


def _check_needs(family: str, row: str, method) -> None:
    """Methods that ask for what a family has not."""
    for need, words in NEEDS.items():
        if getattr(method, f"needs_{need}", False) and need not in OFFERS[family]:
            raise UserError(f"{family}.rows: {row!r} needs {words}, which the family `{family}` has not")


def _check_detection(params: Params, root: Path) -> None:
    """Now, rather than after hours of training."""
    from palinode.memorization import detectors, prompts

    for name in params.detection.detectors:
        detectors.check(name, params.detection.generations, "detection.detectors: ")
    if params.detection.prompts:
        prompts.read(root / params.detection.prompts)


def _check_prompts(params: Params, name: str, root: Path) -> None:
    """The same of a file of prompts, and of what the task takes from it."""
    from palinode import seeds
    from palinode.data import prompt_file, strata

    task, generator = params.concept_tasks[name], seeds.generator(params.root_seed, name, "strata")
    concepts, grammar = prompt_file.read(root / task.prompts)
    strata.of_captions(concepts, task.target, task.anchor, task.sample.each, generator, grammar)


def _stages(params: Params):
    """(name, script, extra modules, settings) of every plan file; a '/' parts task and row in a name."""
    yield "runtime", None, (), params.runtime.model_dump()
    rows_shown, families = {}, {}
    for name in params.data.tasks:
        task, families[name] = params.tasks[name], "data"
        dump = task.model_dump(mode="json")
        common = {"root_seed": params.root_seed, "task": name}
        yield f"prepare-{name}", "prepare", (), dump["data"]
        yield f"judge-{name}", "judge", (), common | {"judge": dump["data"]["judge"]}
        keys = ("base", "oracle", "model", "scheduler", "pretrain")
        shape = {"size": task.data.size, "channels": task.data.channels}
        recipe, modules = {key: dump[key] for key in keys}, ("palinode.methods.naive_deletion",)
        yield f"pretrain-{name}", "pretrain", modules, common | shape | recipe
        yield f"gate-{name}", "gate", (), common | {"gate": dump["gate"], "sample": dump["sample"]}
        yield f"sample-{name}", "sample", (), common | dump["sample"]
        yield f"evaluate-{name}", "evaluate", (), common | dump["evaluate"]
        for row_name in params.data.rows:
            row = params.row(name, row_name)
            training = Training(steps=row.steps, lr=row.lr, **dump["unlearn"]).model_dump(mode="json")
            settings = common | {"method": row.method, "options": row.options, "training": training}
            yield f"unlearn-{name}/{row_name}", "unlearn", (f"palinode.methods.{row.method}",), settings
            rows_shown.setdefault(name, {})[row_name] = settings | {"paper": row.paper}
    for name in params.classes.bases:
        base = params.class_bases[name].model_dump(mode="json")
        common = {"root_seed": params.root_seed, "task": name}
        files = {"train": base["images"], "judge_train": base["judge"]["train"], "judge_test": base["judge"]["test"]}
        yield f"prepare-class-{name}", "prepare_class", (), files | {key: base[key] for key in ("size", "channels")}
        yield f"judge-{name}", "judge", (), common | {"judge": base["judge"]}
        keys = ("model", "scheduler", "pretrain")
        yield f"pretrain-class-{name}", "pretrain_class", (), common | {key: base[key] for key in keys}
        yield f"gate-class-{name}", "gate_class", (), common | {"gate": base["gate"]}
    for name in params.text.bases:
        base = params.text_bases[name].model_dump(mode="json")
        common = {"root_seed": params.root_seed, "task": name}
        keys = ("source", "model", "scheduler", "pool", "autoencoder", "contrast", "denoiser")
        judge, gate = (None, None) if base["source"] else (base["judge"], base["gate"])
        yield f"pretrain-text-{name}", "pretrain_text", (), common | {key: base[key] for key in keys}
        yield f"judge-scenes-{name}", "judge_scenes", (), common | {"training": judge}
        yield f"gate-text-{name}", "gate_text", (), common | {"gate": gate}
    for name in params.detection.bases:
        settings = params.detection.model_dump(exclude={"bases"})
        modules = tuple(f"palinode.memorization.detectors.{detector}" for detector in settings["detectors"])
        yield f"detect-{name}", "detect", modules, {"root_seed": params.root_seed, "task": name} | settings
        kept = {key: settings[key] for key in ("generations", "steps", "guidance", "batch")}
        kept |= {"root_seed": params.root_seed, "task": name, "known": params.text_bases[name].known}
        yield f"mitigate-{name}", "mitigate", (), kept
    for family, stages in (("concept", _concept_stages), ("prompts", _prompt_stages)):
        for name in getattr(params, family).tasks:
            families[name] = family
            for stage in stages(params, name):
                yield stage
                if stage[1] in FAMILIES:
                    row = stage[0].split("/")[1]
                    rows_shown.setdefault(name, {})[row] = stage[3] | {"paper": params.rows[row].paper}
    report = {"root_seed": params.root_seed, "families": families, "tasks": rows_shown, "seeds": params.seeds}
    report["bases"] = [[name, "class"] for name in params.classes.bases] + [[n, "text"] for n in params.text.bases]
    report["detected"] = params.detection.bases
    attacked = itertools.product(params.robustness.tasks, ["base", "oracle", *params.robustness.rows])
    report["attacked"] = [[*pair, params.robustness.attacks] for pair in attacked]
    yield "report", "report", (), report


def _concept_stages(params: Params, name: str):
    """The same of one concept task."""
    task = params.concept_tasks[name]
    dump, kind = task.model_dump(mode="json"), "text" if task.base in params.text_bases else "class"
    images = {} if kind == "text" else {"images": params.class_bases[task.base].images}
    common = {"root_seed": params.root_seed, "task": name, "kind": kind}
    pair = {"target": task.target, "anchor": task.anchor}
    training = dump["data"] | {key: dump["sample"][key] for key in ("guidance", "steps", "chunk")}
    made = {"base": task.base, "prompts": task.prompts, "training": training, "sample": dump["sample"]}
    made |= common | pair | images
    yield f"prepare-concept-{name}", "prepare_concept", (), made
    important = {key: dump["data"][key] for key in ("fisher", "saliency")}
    important |= {key: dump["unlearn"][key] for key in ("batch", "gradient_checkpointing")}
    yield f"importance-{name}", "importance", (), common | important
    yield f"sample-concept-{name}", "sample_concept", (), common | {"sample": dump["sample"]}
    measured = {key: dump[key] for key in ("bootstrap", "lpips_trunk")}
    yield f"evaluate-concept-{name}", "evaluate_concept", (), common | pair | measured
    for row_name in params.concept.rows:
        row = params.row(name, row_name)
        rate = row.lr * params.concept.strength
        training = Training(steps=row.steps, lr=rate, **dump["unlearn"]).model_dump(mode="json")
        settings = {"method": row.method, "options": row.options, "trainable": row.trainable, "training": training}
        module = f"palinode.methods.{row.method}"
        yield f"unlearn-concept-{name}/{row_name}", "unlearn_concept", (module,), common | pair | settings
    for attack in params.robustness.attacks if name in params.robustness.tasks else []:
        chosen = getattr(params.robustness, attack)
        settings = {"target": task.target, "sample": dump["sample"], "bootstrap": task.bootstrap}
        training = Training(steps=chosen.steps[-1], lr=chosen.lr, batch=chosen.batch).model_dump(mode="json")
        settings |= {"budget": chosen.model_dump(), "training": training}
        yield f"{attack}-{name}", "attack_concept", (), common | settings


def _prompt_stages(params: Params, name: str):
    """The same of one task of memorised prompts."""
    task = params.prompt_tasks[name]
    dump, common = task.model_dump(mode="json"), {"root_seed": params.root_seed, "task": name}
    common |= {"known": params.text_bases[task.base].known, "sscd": task.sscd}
    yield f"split-{name}", "split", (), common | {key: dump[key] for key in ("base", "choose", "split", "sample")}
    look = {key: dump[key] for key in ("sample", "bootstrap")}
    yield f"evaluate-prompts-{name}", "evaluate_prompts", (), common | look
    for row_name in params.prompts.rows:
        row = params.row(name, row_name)
        training = Training(lr=row.lr, **dump["unlearn"] | {"steps": row.steps}).model_dump(mode="json")
        settings = {"method": row.method, "options": row.options, "trainable": row.trainable, "training": training}
        module = f"palinode.methods.{row.method}"
        yield f"unlearn-prompts-{name}/{row_name}", "unlearn_prompts", (module,), common | look | settings
