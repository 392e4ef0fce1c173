"""The one place that checks names: what a list or a block names is defined, fits, and is named once."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from palinode.params.bases import ClassBase, OracleBase, TextBase, UnconditionalBase
from palinode.params.concept_tasks import ConceptTask
from palinode.params.prompt_tasks import PromptTask

if TYPE_CHECKING:
    from palinode.params import Params

NAME = re.compile(r"[a-z0-9-]+")  # DVC splits parameter names at dots
KINDS = {"images": "image_tasks", "concept": "concept_tasks", "prompts": "prompt_tasks"}
REFERENCES = {"base", "oracle", "real", "other-seed", "mitigated", "reference"}  # rows that no list may define again


def check(params: "Params") -> None:
    """ValueError names the first list or block that is wrong."""
    _check_spelling(params)
    _check_lists(params)
    for name in params.bases:
        _check_base(params, name)
    for name, block in params.base_models.items():
        if isinstance(block, OracleBase):
            _check_oracle(params, name, block)
    for kind, blocks in KINDS.items():
        for name in getattr(params, blocks):
            _check_task(params, kind, name)
    _check_detection(params)
    _check_attacks(params)
    _check_counts(params)


def _check_spelling(params: "Params") -> None:
    for block in ("rows", "base_models", *KINDS.values()):
        for name in getattr(params, block):
            if not NAME.fullmatch(name):
                raise ValueError(f"{block}: the name {name!r} may only use a-z, 0-9 and '-'")
    for name in params.rows:
        if name in REFERENCES:
            raise ValueError(f"rows: {name!r} is the name of a reference row")
    for name in {"base", "judge", "model", "training", "samples", "snapshots", "prompts", "detect"}:
        if any(name in getattr(params, block) for block in KINDS.values()):
            raise ValueError(f"{name!r} names a folder that every task has: call the task something else")
    tasks = [name for block in KINDS.values() for name in getattr(params, block)]
    for name in tasks:
        if tasks.count(name) > 1:
            raise ValueError(f"{name!r} names two tasks: they would share a folder")


def _check_lists(params: "Params") -> None:
    if not any(params.enabled(kind).tasks for kind in KINDS):
        raise ValueError("images.tasks: the list is empty, and so are concept.tasks and prompts.tasks")
    for kind, blocks in KINDS.items():
        enabled = params.enabled(kind)
        used = bool(enabled.tasks)
        for key, defined in (("tasks", blocks), ("rows", "rows")):
            values = getattr(enabled, key)
            _check_defined(f"{kind}.{key}", values, defined, getattr(params, defined))
            _check_values(f"{kind}.{key}", values, filled=used)
        _check_values(f"{kind}.subjects", enabled.subjects, filled=used)
    _check_defined("bases", params.bases, "base_models", params.base_models)
    _check_values("bases", params.bases, filled=True)
    _check_values("seeds", params.seeds, filled=True)
    _check_values("detection.detectors", params.detection.detectors, filled=True)


def _check_defined(where: str, values: Iterable[str], block: str, defined: Iterable[str]) -> None:
    for name in values:
        if name not in set(defined):
            raise ValueError(f"{where}: {name!r} is not defined under `{block}`")


def _check_values(where: str, values: list, filled: bool) -> None:
    if filled and not values:
        raise ValueError(f"{where}: the list is empty")
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{where}: repeated: {', '.join(repeated)}")


def _check_base(params: "Params", name: str) -> None:
    block = params.base_models[name]
    if isinstance(block, UnconditionalBase) and block.start is not None:
        raise ValueError(f"bases: {name!r} continues {block.start!r}, which `make tune` alone trains")


def _check_oracle(params: "Params", name: str, oracle: OracleBase) -> None:
    where = f"base_models.{name}"
    base = params.base_models.get(oracle.of)
    if base is None or isinstance(base, OracleBase):
        raise ValueError(f"{where}.of: {oracle.of!r} is not defined under `base_models`, or is an oracle itself")
    if getattr(base, "source", None) is not None:
        raise ValueError(f"{where}.of: {oracle.of!r} is a finished model, which is not trained here")
    if isinstance(base, UnconditionalBase) and (oracle.without != "repeated" or base.data.repeated is None):
        raise ValueError(f"{where}.without: {oracle.without!r} is unknown; `repeated` is what {oracle.of!r} repeats")
    if isinstance(base, ClassBase) and not isinstance(oracle.without, int):
        raise ValueError(f"{where}.without: {oracle.without!r} is no class")


def _check_task(params: "Params", kind: str, name: str) -> None:
    task = params.task(name)
    where = f"{KINDS[kind]}.{name}"
    wanted = {"images": UnconditionalBase, "concept": ClassBase | TextBase, "prompts": TextBase}[kind]
    base = params.base_models.get(task.base)
    if base is None or not isinstance(base, wanted):
        raise ValueError(f"{where}.base: {task.base!r} is not defined under `base_models` for the kind {kind}")
    _check_defined(f"{where}.overrides", task.overrides, "rows", params.rows)
    if name in params.enabled(kind).tasks and task.base not in params.bases:
        raise ValueError(f"{kind}.tasks: {name!r} needs {task.base!r} in the list `bases`")
    oracle = getattr(task, "oracle", None)
    if oracle is not None:
        _check_image_oracle(params, f"{where}.oracle", oracle, listed=name in params.images.tasks)
    if isinstance(task, ConceptTask) and isinstance(base, ClassBase | TextBase):
        _check_prompt_file(where, task, base)
        if isinstance(base, TextBase) and base.corpus != "emoji":
            raise ValueError(f"{where}.base: concept tasks caption as the corpus emoji does, not as {base.corpus!r}")
    if isinstance(task, PromptTask):
        _check_prompt_task(params, name, task)


def _check_prompt_task(params: "Params", name: str, task: PromptTask) -> None:
    """Its prompts are those that detection flags."""
    if name in params.prompts.tasks and task.base not in params.detection.bases:
        raise ValueError(f"prompts.tasks: {name!r} needs {task.base!r} in the list `detection.bases`")
    if name in params.prompts.tasks and "noise_norm" not in params.detection.detectors:
        raise ValueError(f"prompts.tasks: {name!r} needs `noise_norm` in the list `detection.detectors`")
    if task.sscd and params.text(task.base).source is None:
        raise ValueError(f"prompt_tasks.{name}.sscd is not used: the fixed pictures of {task.base!r} are known")


def _check_image_oracle(params: "Params", where: str, oracle: str, listed: bool) -> None:
    block = params.base_models.get(oracle)
    if block is None or not isinstance(params.recipe(oracle), UnconditionalBase):
        raise ValueError(f"{where}: {oracle!r} is no unconditional base under `base_models`")
    if listed and oracle not in params.bases:
        raise ValueError(f"{where}: {oracle!r} is not in the list `bases`")


def _check_prompt_file(where: str, task: ConceptTask, base: ClassBase | TextBase) -> None:
    """What a finished text-to-image model draws is known from a list of prompts alone, and to no judge."""
    finished = isinstance(base, TextBase) and base.source is not None
    if task.prompts is not None and not finished:
        raise ValueError(f"{where}.prompts is not used: {task.base!r} has prompts of its own")
    if task.prompts is None and finished:
        raise ValueError(f"{where}: prompts is missing: {task.base!r} has a `source`, so list them")


def _check_detection(params: "Params") -> None:
    for name in params.detection.bases:
        base = params.base_models.get(name)
        if name not in params.bases or not isinstance(base, TextBase):
            raise ValueError(f"detection.bases: {name!r} is no text-to-image model of the list `bases`")
        if base.source and params.detection.prompts is None:
            raise ValueError(f"detection.prompts: what {name!r} was shown is unknown, so list them")


def _check_attacks(params: "Params") -> None:
    for key in ("tasks", "rows"):
        for name in getattr(params.attacks, key):
            if name not in getattr(params.concept, key):
                raise ValueError(f"attacks.{key}: {name!r} is not in the list `concept.{key}`")
    for name in params.attacks.tasks:
        base = params.base_models[params.concept_tasks[name].base]
        if isinstance(base, TextBase) and base.source is not None:
            raise ValueError(f"attacks.tasks: no judge knows what the base of {name!r} draws")


def _check_counts(params: "Params") -> None:
    counts = params.counts
    for key in ("tasks", "rows"):
        for name in getattr(counts, key):
            if name not in getattr(params.images, key):
                raise ValueError(f"counts.{key}: {name!r} is not in the list `images.{key}`")
    for seed in counts.seeds if counts.tasks else []:
        if seed not in params.seeds:
            raise ValueError(f"counts.seeds: {seed} is not in the list `seeds`")
    for name in counts.tasks:
        sample = params.image_tasks[name].sample
        if sample.sampler != "ddpm":
            raise ValueError(f"counts.tasks: {name!r} is sampled by {sample.sampler}; only ddpm is counted")
        if counts.look >= sample.steps:
            raise ValueError(f"counts.look: {counts.look} is not below the {sample.steps} steps of {name!r}")
