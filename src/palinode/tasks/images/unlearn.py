"""Unlearn the forget set of one subject from the base model."""

from palinode import methods
from palinode.core.errors import Absent
from palinode.core.io import read_json
from palinode.core.work import Work
from palinode.data.splits import read_neighbours, read_subject
from palinode.models import unconditional
from palinode.params.stage_settings import Unlearn
from palinode.tasks.subjects import check_subject, seed_name
from palinode.training.batches import ImageBatches
from palinode.training.unlearning import Job, unlearn, write_training


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    settings = work.settings(Unlearn)
    if settings.absent:
        raise Absent(settings.absent)
    metadata = read_json(work.input("metadata.json"))
    number = check_subject(subject, len(metadata["subjects"]))
    folder = work.input("metadata.json").parent
    retain, forget = read_subject(folder, number, metadata)
    training = settings.training
    method = methods.load(settings.method, settings.options, f"rows.{row}.options: ")
    neighbours = read_neighbours(folder, number, metadata) if "neighbours" in method.needs else None
    key = (settings.root_seed, seed_name(settings.name, number), "unlearn", seed)
    with work.scratch() as scratch:
        model = unconditional.load(work.input("base"), work.device, training.precision)

        def batches() -> ImageBatches:
            total = len(model.schedule)
            return ImageBatches(
                retain, forget, total, training.batch, training.accumulate, work.device, key, neighbours
            )

        job = Job(model=model, seen=model, batches=batches, key=key, statistics={})
        history = unlearn(job, method, training, settings.trainable, scratch, work.name)
        unconditional.save(model, work.output("model"))
        write_training(work.output("training"), history, model.nfe)
