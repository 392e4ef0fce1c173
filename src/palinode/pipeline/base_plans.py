"""The plan files of base models: prepare, judge, pretrain, gate, second_judge, detect, mitigate."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from palinode.bases import module_name
from palinode.params import Params
from palinode.params import stage_settings as s
from palinode.params.bases import ClassBase, TextBase, UnconditionalBase

Planned = tuple[str, BaseModel, str, tuple[str, ...], tuple[str, ...]]  # the fields of planning.Plan
FINISHED = "the base was trained elsewhere: no judge knows what it draws"
GROUPS = {"prepare": "prepare-base", "second_judge": "second-judge"}  # names in dvc.yaml, where they are not the verb
UNCONDITIONAL = "a model without conditions forgets no concept, which a second judge would look for"
ORACLE = "an oracle is judged by the classifier of its base, and checked nowhere"


def plan_base(params: Params, base: str) -> Iterator[Planned]:
    """The five stages of a base or an oracle."""
    recipe = params.recipe(base)
    oracle = params.without(base) is not None
    # An oracle draws the seeds of its base: both differ in their training set alone.
    name = recipe_name(params, base)
    if isinstance(recipe, UnconditionalBase):
        stages = _plan_unconditional(params, name, recipe, oracle)
    elif isinstance(recipe, ClassBase):
        stages = _plan_class(params, name, recipe, params.without(base))
    else:
        stages = _plan_text(params, name, recipe, params.without(base))
    for verb, settings, data, modules in stages:
        group = GROUPS.get(verb, verb)
        yield f"{group}/{base}", settings, verb, (module_name(recipe.kind, verb), *modules), data


def recipe_name(params: Params, base: str) -> str:
    """The base by whose recipe a base or an oracle is trained."""
    return getattr(params.base_models[base], "of", base)


Staged = tuple[str, BaseModel, tuple[str, ...], tuple[str, ...]]  # verb, settings, data, modules


def _plan_unconditional(params: Params, name: str, base: UnconditionalBase, oracle: bool) -> Iterator[Staged]:
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": name, "kind": base.kind}
    finished = base.source is not None
    judge = None if oracle else base.data.judge
    data: tuple[str, ...] = ()
    if not finished:
        data = _paths(base.data.images, base.data.reference)
        data += () if oracle or base.data.repeated is None else (base.data.repeated.images,)
    data += () if judge is None else _labelled(judge.train, judge.test)
    prepared = s.PrepareImageBase(**common, data=base.data, trained=not finished, oracle=oracle)
    yield "prepare", prepared, data, ()
    reason = ORACLE if oracle else "the base has no labelled images (`data.judge`)"
    yield "judge", s.TrainJudge(**common, judge=judge, reason=reason), (), ()
    pretrained = s.PretrainImages(
        **common,
        source=base.source,
        model=base.model,
        scheduler=base.scheduler,
        pretrain=base.pretrain,
        size=base.data.size,
        channels=base.data.channels,
    )
    yield "pretrain", pretrained, (), ("palinode.methods.naive_deletion",)
    reason = ORACLE if oracle else "the base has no `gate`"
    yield "gate", s.GateImages(**common, gate=None if oracle or finished else base.gate, reason=reason), (), ()
    yield "second_judge", s.FitSecondJudge(**common, reason=UNCONDITIONAL), (), ()


def _plan_class(params: Params, name: str, base: ClassBase, without: str | int | None) -> Iterator[Staged]:
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": name, "kind": base.kind}
    oracle = without is not None
    judge = None if oracle else base.judge
    data = _labelled(base.images) + (() if judge is None else _labelled(judge.train, judge.test))
    prepared = s.PrepareClassBase(
        **common,
        images=base.images,
        judge=judge,
        size=base.size,
        channels=base.channels,
        without=None if without is None else int(without),
    )
    yield "prepare", prepared, data, ()
    yield "judge", s.TrainJudge(**common, judge=judge, reason=ORACLE), (), ()
    pretrained = s.PretrainClasses(**common, model=base.model, scheduler=base.scheduler, pretrain=base.pretrain)
    yield "pretrain", pretrained, (), ()
    yield "gate", s.GateClasses(**common, gate=None if oracle else base.gate, reason=ORACLE), (), ()
    yield "second_judge", s.FitSecondJudge(**common, reason=ORACLE if oracle else ""), (), ()


def _plan_text(params: Params, name: str, base: TextBase, without: str | int | None) -> Iterator[Staged]:
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": name, "kind": base.kind}
    oracle = without is not None
    finished = base.source is not None
    reason = ORACLE if oracle else FINISHED
    data = () if finished else ("data/emoji",)
    yield "prepare", s.PrepareTextBase(**common, trained=not finished), data, ()
    unjudged = oracle or finished
    judged = s.TrainSceneJudge(**common, corpus=base.corpus, training=None if unjudged else base.judge, reason=reason)
    yield "judge", judged, (), ()
    pretrained = s.PretrainText(
        **common,
        corpus=base.corpus,
        source=base.source,
        model=base.model,
        scheduler=base.scheduler,
        pool=base.pool,
        autoencoder=base.autoencoder,
        contrastive=base.contrastive,
        denoiser=base.denoiser,
        without=None if without is None else str(without),
    )
    yield "pretrain", pretrained, (), ()
    gated = s.GateText(
        **common,
        corpus=base.corpus,
        sampler=base.sampler,
        gate=None if unjudged else base.gate,
        reason=reason,
    )
    yield "gate", gated, (), ()
    fit = s.FitSecondSceneJudge(
        **common, **base.second_judge.model_dump(), corpus=base.corpus, reason=reason if unjudged else ""
    )
    yield "second_judge", fit, (), data


def plan_detection(params: Params, base: str) -> Iterator[Planned]:
    """Detection of a base's memorized prompts, and their mitigation at sampling time."""
    detection = params.detection
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": base}
    known = params.text(base).ground_truth
    sampling = params.text(base).sampler.model_dump() | {
        "generations": detection.generations,
        "batch": detection.batch,
        "ground_truth": known,
    }
    detect = s.Detect(**common, **sampling, prompts=detection.prompts, detectors=detection.detectors)
    modules = tuple(f"palinode.memorization.detectors.{detector}" for detector in detection.detectors)
    data = ("data/emoji",) if detection.prompts is None else (detection.prompts,)
    yield f"detect/{base}", detect, "detect", modules, data
    mitigate = s.Mitigate(**common, **sampling)
    files = () if known == "list" else ("data/emoji",)
    yield f"mitigate/{base}", mitigate, "mitigate", (), files


def _paths(*names: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)


def _labelled(*names: str) -> tuple[str, ...]:
    """Arrays of images, and the labels beside them."""
    return tuple(file for name in names for file in (name, f"{name.removesuffix('.npy')}-labels.npy"))
