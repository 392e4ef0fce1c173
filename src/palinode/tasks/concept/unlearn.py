"""Unlearn the target of one subject from its base model."""

from safetensors.torch import load_file
from torch import Tensor

from palinode import methods
from palinode.core.errors import Absent
from palinode.core.io import absence, read_json
from palinode.core.work import Work
from palinode.models import loading
from palinode.params.stage_settings import UnlearnConcept
from palinode.tasks.subjects import seed_name
from palinode.training import concept_batches
from palinode.training.unlearning import Job, unlearn, write_training

STATISTICS = ("saliency", "fisher")


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    settings = work.settings(UnlearnConcept)
    reason = settings.absent or absence(work.input("training"))
    if reason:
        raise Absent(reason)
    training = settings.training
    method = methods.load(settings.method, settings.options, f"rows.{row}.options: ")
    key = (settings.root_seed, seed_name(settings.name, int(subject)), "unlearn", seed)
    with work.scratch() as scratch:
        model = loading.load(work.input("base"), work.device, training.precision)
        data = work.input("training")

        def batches() -> concept_batches.ConceptBatches:
            loaded = concept_batches.load(data)
            steps = settings.trajectory_steps
            return concept_batches.ConceptBatches(loaded, model, training.batch, training.accumulate, key, steps)

        statistics: dict[str, Tensor] = {}
        for name in STATISTICS:
            if name in method.needs:
                file = work.input(f"importance/{task}/{subject}") / f"{name}.safetensors"
                statistics |= load_file(file, device=str(work.device))
        job = Job(
            model=model,
            seen=model,
            batches=batches,
            key=key,
            statistics=statistics,
            edit_prompts=lambda: read_json(data / "edit_prompts.json"),
        )
        history = unlearn(job, method, training, settings.trainable, scratch, work.name)
        loading.save(model, work.outputs[0])
        write_training(work.outputs[1], history, model.nfe)
