"""Attack one cell, or base and oracle, on the training prompts: relearn or prompt-tuning."""

import dataclasses

import numpy as np

from palinode.attacks import attack as attacks
from palinode.attacks import outcome
from palinode.classifiers import concept_classifiers
from palinode.core import estimate
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.errors import Absent
from palinode.core.io import absence, atomic, read_json, write_arrays, write_csv, write_json
from palinode.core.work import Work
from palinode.data.prompt_sets import TRAINING, PromptSets
from palinode.models import loading
from palinode.models.denoiser import Denoiser
from palinode.params.stage_settings import AttackConcept
from palinode.sampling import prompted
from palinode.tasks.subjects import seed_name
from palinode.training import concept_batches

SHOWN = 16  # pictures a step on the contact sheet


def run(work: Work, task: str, subject: str, row: str, seed: str, attack: str) -> None:
    """row, seed: `reference`, and `base` or `oracle`, for a model that is not unlearned."""
    settings = work.settings(AttackConcept)
    reference = seed if row == "reference" else None
    folder = work.input("model") if reference is None else work.input(f"{task}/{subject}/{reference}")
    prompts_folder = work.input("prompts")
    reason = absence(prompts_folder) or absence(folder)
    if reason:
        raise Absent(reason)
    classifier = concept_classifiers.load(work.input("judge"), settings.kind, settings.target)
    if isinstance(classifier, str):
        raise Absent(classifier)
    captions = PromptSets.from_json(read_json(prompts_folder / "prompt_sets.json")).forget[TRAINING]
    name = seed_name(settings.name, int(subject))
    sample = settings.sample
    key = (settings.root_seed, name, attacks.SEED_NAMES[attack], "0" if reference else seed)

    def draw(model: Denoiser) -> np.ndarray:
        prompts = [model.parse_prompt(caption.text) for caption in captions]
        look = (settings.root_seed, name)
        return prompted.draw(model, prompts, look, sample.guidance, sample.steps, None, sample.chunk)

    with work.scratch() as scratch:
        model = loading.load(folder, work.device)
        data = concept_batches.load(work.input("training"))
        if reference == "oracle":
            base = loading.load(work.input(f"{task}/base"), work.device)
            data = dataclasses.replace(data, forget=attacks.translate(data.forget, base, model))
        pictures, history = attacks.run_attack(model, data, settings, key, draw, scratch, work.name)
    hits = [~classifier(images, captions).missed for images in pictures]
    steps = [0, *settings.budget.steps]
    entries, replicates = estimate.pack(outcome.measure_return(attack, steps, hits, settings.bootstrap))
    with atomic(work.outputs[0]) as out:
        write_json(out / "metrics.json", entries)
        write_arrays(out / "replicates.npz", replicates)
        write_json(out / "budget.json", {"pictures": len(data.forget)} | settings.budget.model_dump())
        write_csv(out / "training.csv", history)
        shown = pictures[:, :SHOWN]
        write_png(out / "contact.png", sheet(shown.reshape(-1, *shown.shape[2:]), shown.shape[1]))
