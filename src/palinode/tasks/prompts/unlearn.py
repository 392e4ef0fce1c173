"""Unlearn one memorized prompt, or all of a task in sequence, and keep what the model draws on the way.

Methods of both other kinds run unchanged: batches are `ConceptBatch`es of latents, retain and forget images are both
conditioned on the memorized prompt, and the anchor is the null prompt. `FixedCondition` lets methods written for
unconditional models call `predict(x_t, t)`. No weights are kept.
"""

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from palinode import methods
from palinode.core.errors import Absent
from palinode.core.io import read_arrays, write_arrays
from palinode.core.scratch import Scratch
from palinode.core.work import Work
from palinode.memorization.prompt_sampler import PromptSampler, Snapshot
from palinode.methods import Method
from palinode.models import text_to_image
from palinode.models.guidance import FixedCondition
from palinode.models.text_to_image import TextToImage
from palinode.params import SEQUENTIAL
from palinode.params.stage_settings import UnlearnPrompts
from palinode.tasks.prompts.snapshots import Snapshots, chosen_prompts
from palinode.tasks.prompts.targets import PromptFacts, TrainingTarget, read_facts, read_training
from palinode.training.concept_batches import ConceptBatches, ConceptData
from palinode.training.unlearning import Job, unlearn, write_training

WEIGHTS = "weights.safetensors"


class Watch:
    """Keeps a snapshot of a prompt every so many steps; they wait in a folder, so that a killed run goes on."""

    def __init__(self, sampler: PromptSampler, target: TrainingTarget, folder: Path):
        self.sampler = sampler
        self.target = target
        self.folder = folder

    def __call__(self, step: int) -> None:
        path = self.folder / f"snapshot-{step}.npz"
        if step % self.sampler.sample.every == 0 and not path.exists():
            write_arrays(path, vars(self.sampler.snapshot(self.target.prompt.versions)))

    def collect(self, steps: int) -> dict[int, Snapshot]:
        """The snapshots after the start."""
        every = self.sampler.sample.every
        return {
            step: Snapshot(**read_arrays(self.folder / f"snapshot-{step}.npz"))
            for step in range(every, steps + 1, every)
        }


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    settings = work.settings(UnlearnPrompts)
    if settings.absent:
        raise Absent(settings.absent)
    folder = work.input("prompts.json").parent
    facts = read_facts(folder)
    numbers = chosen_prompts(facts, subject)
    targets = read_training(folder, facts)
    method = methods.load(settings.method, settings.options, f"rows.{row}.options: ")
    with work.scratch() as scratch:
        model = text_to_image.load(work.input("base"), work.device, settings.training.precision)
        sampler = PromptSampler(model, settings.root_seed, settings.name, settings.sample, settings.probe_steps)
        cell = Cell(model, method, settings, facts, seed, work.name)
        if subject == SEQUENTIAL:
            history, nfe = cell.forget_all([targets[number] for number in numbers], scratch)
            by_prompt = {i: {0: sampler.snapshot(facts.prompts[i].versions)} for i in numbers}
        else:
            (number,) = numbers
            watch = Watch(sampler, targets[number], scratch.folder)
            history, nfe = cell.forget(targets[number], scratch, watch)
            steps = settings.training.steps
            if method.closed_form:  # one edit, drawn with once
                steps = settings.sample.every
                watch(steps)
            by_prompt = {number: watch.collect(steps)}
        ordinary, others = sampler.control_samples(facts.controls)
        Snapshots(by_prompt, ordinary, others).save(work.outputs[0])
        write_training(work.outputs[1], history, nfe)


class Cell:
    """One model that forgets prompts by one method."""

    def __init__(
        self,
        model: TextToImage,
        method: Method,
        settings: UnlearnPrompts,
        facts: PromptFacts,
        seed: str,
        label: str,
    ):
        self.model = model
        self.method = method
        self.settings = settings
        self.facts = facts
        self.seed = seed
        self.label = label

    def forget(
        self, target: TrainingTarget, scratch: Scratch, watch: Callable[[int], None] | None = None
    ) -> tuple[list[dict], dict[str, int]]:
        """Train the model in place to forget one prompt; (the logged history, network evaluations)."""
        settings = self.settings
        model = self.model
        model.nfe.update(dict.fromkeys(model.nfe, 0))
        prompt = target.prompt
        key = (settings.root_seed, f"{settings.name} {prompt.text}", "unlearn", self.seed)
        data = training_data(target, model, "anchor" in self.method.needs)
        with torch.no_grad():
            seen = FixedCondition(model, model.condition([prompt.trained_on]))

        def batches() -> ConceptBatches:
            training = settings.training
            steps = settings.trajectory_steps
            near = target.neighbours if "neighbours" in self.method.needs else None
            return ConceptBatches(data, model, training.batch, training.accumulate, key, steps, near)

        def edit_prompts() -> dict[str, list[str]]:
            names = {
                "target": [prompt.trained_on],
                "anchor": [str(model.null_prompt)],
                "kept": self.facts.controls.kept,
            }
            return names | {f"{role}_in_templates": [] for role in names}

        job = Job(
            model=model,
            seen=seen,
            batches=batches,
            key=key,
            statistics={},
            edit_prompts=edit_prompts,
            watch=watch,
        )
        history = unlearn(job, self.method, settings.training, settings.trainable, scratch, self.label)
        nfe = dict(model.nfe)
        gc.collect()  # torch leaves a process's first optimiser, moments and all, in a reference cycle
        return history, nfe

    def forget_all(self, targets: list[TrainingTarget], scratch: Scratch) -> tuple[list[dict], dict[str, int]]:
        """`forget` one prompt after the other; what is logged names the prompt by its place.

        A prompt that an interrupted run has forgotten is read back.
        """
        history: list[dict] = []
        nfe = dict.fromkeys(self.model.nfe, 0)
        for place, target in enumerate(targets):
            part = scratch.part(str(place))
            record = part.cached_json("record", partial(self._forget_and_keep, target, part))
            weights = load_file(part.folder / WEIGHTS, device=str(self.model.device))
            self.model.net.load_state_dict(weights)
            history += [{"prompt": place} | line for line in record["history"]]
            nfe = {way: nfe[way] + count for way, count in record["nfe"].items()}
        return history, nfe

    def _forget_and_keep(self, target: TrainingTarget, scratch: Scratch) -> dict:
        """Forget one prompt; weights and history wait in `scratch`, so that a killed run goes on behind it."""
        history, nfe = self.forget(target, scratch)
        scratch.cached(WEIGHTS, lambda path: save_file(self.model.net.state_dict(), path))
        return {"history": history, "nfe": nfe}


def training_data(target: TrainingTarget, model: TextToImage, anchored: bool) -> ConceptData:
    """What a step sees of a prompt: pictures to retain and to forget, both conditioned on it, as SISS has it.

    The target is the prompt, its anchor the null prompt. A method that trains with an anchor conditions the pictures to
    retain on the null prompt instead: what the original predicts under the memorized prompt is just what must not be
    preserved.
    """
    null, prompt = 0, 1
    retain = target.retain
    forget = target.forget
    return ConceptData(
        prompts=[model.null_prompt, target.prompt.trained_on],
        retain=retain,
        retain_prompt=torch.full((len(retain),), null if anchored else prompt),
        forget=forget,
        forget_prompt=torch.full((len(forget),), prompt),
        anchor=retain[torch.arange(len(forget)) % len(retain)],
        anchor_prompt=torch.full((len(forget),), null),
    )
