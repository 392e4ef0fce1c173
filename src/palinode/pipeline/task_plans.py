"""The plan files of tasks, the binding of tasks to models, and the report's."""

import itertools
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from palinode import methods, tasks
from palinode.params import KINDS, Params, Row, Training
from palinode.params import report_settings as r
from palinode.params import stage_settings as s
from palinode.params.bases import ClassBase
from palinode.params.concept_tasks import ConceptTask
from palinode.params.image_tasks import ImageTask
from palinode.params.prompt_tasks import PromptTask
from palinode.pipeline.base_plans import Planned
from palinode.pipeline.needs import missing_need
from palinode.tasks.subjects import no_subject

Staged = tuple[str, str, BaseModel, tuple[str, ...], tuple[str, ...]]  # verb, name, settings, modules, data


def plan_task(params: Params, kind: str, name: str) -> Iterator[Planned]:
    """Every stage of one task."""
    task = params.task(name)
    if isinstance(task, ImageTask):
        stages = _plan_images(params, name, task)
    elif isinstance(task, ConceptTask):
        stages = _plan_concept(params, name, task)
    else:
        stages = _plan_prompts(params, name, task)
    for verb, path, settings, modules, data in stages:
        yield f"{verb}-{kind}/{path}", settings, verb, (tasks.module_name(kind, verb), *modules), data


def _plan_images(params: Params, name: str, task: ImageTask) -> Iterator[Staged]:
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": name}
    data = params.unconditional(task.base).data
    files = [data.images, *([] if data.reference is None else [data.reference])]
    files += [task.forget] if isinstance(task.forget, str) else []
    together = task.subjects == "together"
    prepare = s.PrepareImages(
        **common,
        data=data,
        forget=task.forget,
        together=together,
        hit_ratio=task.hit_ratio,
        neighbours=task.neighbours,
    )
    yield "prepare", name, prepare, (), tuple(files)
    yield "sample", name, s.SampleImages(**common, sample=task.sample), (), ()
    yield "evaluate", name, s.EvaluateImages(**common, evaluate=task.evaluate), (), ()
    if name in params.counts.tasks:
        # Not the lists: a further row leaves the others as they are.
        counted = s.CountImages(
            **common,
            **params.counts.model_dump(include={"count", "look", "far", "chunk"}),
            steps=task.sample.steps,
            precision=task.sample.precision,
        )
        yield "count", name, counted, (), ()
    for row in params.images.rows:
        yield _plan_unlearning(params, "images", name, row)


def _plan_concept(params: Params, name: str, task: ConceptTask) -> Iterator[Staged]:
    base = params.recipe(task.base)
    emoji = () if isinstance(base, ClassBase) else ("data/emoji",)  # what the judge of scenes knows
    files: tuple[str, ...] = ("data/emoji",)
    if isinstance(base, ClassBase):
        files = (base.images, f"{base.images.removesuffix('.npy')}-labels.npy")
    elif task.prompts is not None:
        files = (task.prompts,)
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": name}
    amounts = s.Amounts(retain=task.data.retain, pairs=task.data.pairs)
    for subject in params.concept.subjects:
        # A subject that the task does not have is planned like the first: its stages say that there is none.
        target, anchor = task.pairs[subject] if subject < len(task.pairs) else task.pairs[0]
        path = f"{name}/{subject}"
        prepare = s.PrepareConcept(
            **common,
            absent=no_subject(subject, len(task.pairs)),
            kind=base.kind,
            target=target,
            anchor=anchor,
            images=base.images if isinstance(base, ClassBase) else None,
            prompts=task.prompts,
            amounts=amounts,
            sample=task.sample,
        )
        yield "prepare", path, prepare, (), files
        evaluate = s.EvaluateConcept(
            **common, kind=base.kind, target=target, bootstrap=task.bootstrap, lpips_trunk=task.lpips_trunk
        )
        yield "evaluate", path, evaluate, (), emoji
        for attack in params.attacks.attacks if name in params.attacks.tasks else []:
            budget = params.attacks.budget(attack)
            attacked = s.AttackConcept(
                **common,
                kind=base.kind,
                target=target,
                sample=task.sample,
                bootstrap=task.bootstrap,
                budget=budget,
                training=Training(steps=budget.steps[-1], lr=budget.lr, batch=budget.batch),
            )
            yield "attack", f"{path}/{attack}", attacked, (), emoji
    importance = s.Importance(
        **common,
        fisher=task.data.fisher,
        fisher_steps=task.data.fisher_steps,
        saliency=task.data.saliency,
        saliency_guidance=task.data.saliency_guidance or task.sample.guidance,
        saliency_clip=task.data.saliency_clip,
        batch=task.unlearn.batch,
        gradient_checkpointing=task.unlearn.gradient_checkpointing,
    )
    yield "importance", name, importance, (), ()
    sample = s.SampleConcept(root_seed=params.root_seed, name=name, sample=task.sample)
    yield "sample", name, sample, (), ()
    for row in params.concept.rows:
        yield _plan_unlearning(params, "concept", name, row)


def _plan_prompts(params: Params, name: str, task: PromptTask) -> Iterator[Staged]:
    common: dict[str, Any] = {"root_seed": params.root_seed, "name": name}
    known: dict[str, Any] = {"ground_truth": params.text(task.base).ground_truth, "sscd": task.sscd, "real": task.real}
    drawn: dict[str, Any] = {"sample": task.sample, "probe_steps": params.text(task.base).sampler.steps}
    prepare = s.PreparePrompts(
        **common, **known, **drawn, choose=task.choose, split=task.split, neighbours=task.neighbours
    )
    yield "prepare", name, prepare, (), ("data/emoji",)
    yield "sample", name, s.SamplePrompts(**common, **drawn), (), ()
    evaluate = s.EvaluatePrompts(**common, **known, bootstrap=task.bootstrap)
    yield "evaluate", name, evaluate, (), ("data/emoji",)
    for row in params.prompts.rows:
        yield _plan_unlearning(params, "prompts", name, row)


def _plan_unlearning(params: Params, kind: str, task: str, row: str) -> Staged:
    settings = params.row(task, row)
    unlearn: dict[str, Any] = {
        "root_seed": params.root_seed,
        "name": task,
        "method": settings.method,
        "options": settings.options,
        "trainable": settings.trainable,
        "training": training_of(params, kind, task, settings),
        "absent": missing_need(params, kind, task, row),
    }
    planned: s.Unlearn = s.Unlearn(**unlearn)
    chosen = params.task(task)
    if isinstance(chosen, ConceptTask):
        planned = s.UnlearnConcept(**unlearn, trajectory_steps=chosen.steps_of_trajectories)
    if isinstance(chosen, PromptTask):
        planned = s.UnlearnPrompts(
            **unlearn,
            sample=chosen.sample,
            trajectory_steps=chosen.steps_of_trajectories,
            probe_steps=params.text(chosen.base).sampler.steps,
        )
    return "unlearn", f"{task}/{row}", planned, (f"{methods.__name__}.{settings.method}",), ()


def training_of(params: Params, kind: str, task: str, row: Row) -> Training:
    """How a row trains on a task."""
    shared = params.task(task).unlearn.model_dump() | {"steps": row.steps}
    if not row.clipped:
        shared["clip"] = None
    multipliers = {"images": params.images.lr_multiplier, "concept": params.concept.lr_multiplier}
    return Training(lr=row.lr * multipliers.get(kind, 1.0), **shared)


def plan_bind(params: Params) -> s.Bind:
    """Which models every task uses."""
    bound = {}
    for kind in KINDS:
        for name in params.enabled(kind).tasks:
            task = params.task(name)
            references: dict[str, s.Reference] = {}
            if isinstance(task, ImageTask):
                references = {"oracle": _image_oracle(params, name, task)}
                references["real"] = s.Reference(model=None, reason="training images are drawn by no model")
            if isinstance(task, ConceptTask):
                for subject in params.concept.subjects:
                    references |= _concept_references(params, task, subject)
            bound[name] = s.Bound(base=task.base, detect=kind == "prompts", references=references)
    return s.Bind(tasks=bound)


def _image_oracle(params: Params, name: str, task: ImageTask) -> s.Reference:
    """The model that never saw the forget set of all subjects together."""
    if task.oracle is not None:
        return s.Reference(model=task.oracle)
    repeated = params.unconditional(task.base).data.repeated
    oracle = params.oracle_of(task.base, "repeated")
    forgotten = repeated is not None and repeated.images == task.forget and task.subjects == "together"
    if oracle is None or not forgotten:
        return s.Reference(model=None, reason=f"no model was trained without the forget set of {name}")
    return s.Reference(model=oracle)


def _concept_references(params: Params, task: ConceptTask, subject: int) -> dict[str, s.Reference]:
    """The models of a subject's reference rows, by subject/row; none of a subject that the task does not have."""
    target = task.pairs[subject][0] if subject < len(task.pairs) else None
    oracle = None if target is None else params.oracle_of(task.base, target)
    reason = no_subject(subject, len(task.pairs)) or f"no model was trained without {target}"
    return {
        f"{subject}/base": s.Reference(model=task.base),
        f"{subject}/oracle": s.Reference(model=oracle, reason="" if oracle else reason),
        f"{subject}/other-seed": s.Reference(model=task.base),
    }


def plan_report(params: Params) -> r.ReportSettings:
    """What the report shows, in the order of the lists."""
    shown = []
    for kind in KINDS:
        enabled = params.enabled(kind)
        for name in enabled.tasks:
            rows = {row: _report_row(params, kind, name, row) for row in enabled.rows}
            shown.append(r.ReportTask(name=name, kind=kind, subjects=list(enabled.subjects), rows=rows))
    order = {"unconditional": 0, "class": 1, "text": 2}
    bases = [r.ReportBase(name=base, kind=params.recipe(base).kind) for base in params.bases]
    counts = params.counts
    counted = [
        r.Counted(task=task, row=row, seed=seed)
        for task in counts.tasks
        for row, seed in [("base", 0), ("oracle", 0), *itertools.product(counts.rows, counts.seeds)]
    ]
    attacked = itertools.product(params.attacks.tasks, ["base", "oracle", *params.attacks.rows])
    return r.ReportSettings(
        root_seed=params.root_seed,
        seeds=params.seeds,
        tasks=shown,
        bases=sorted(bases, key=lambda base: order[base.kind]),
        detected=params.detection.bases,
        counted=counted,
        attacked=[r.Attacked(task=task, row=row, attacks=list(params.attacks.attacks)) for task, row in attacked],
    )


def _report_row(params: Params, kind: str, task: str, row: str) -> r.ReportRow:
    settings = params.row(task, row)
    return r.ReportRow(
        method=settings.method,
        paper=settings.paper,
        options=settings.options,
        training=training_of(params, kind, task, settings),
    )
