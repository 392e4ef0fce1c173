"""The prompts and the pictures that one subject of a concept task trains on and is measured by.

out/tasks/<task>/<subject>/: prompts/ with prompt_sets.json and, where there are real pictures, real.npy; training/.
"""

import dataclasses

from palinode.core.errors import Absent, UserError
from palinode.core.io import atomic, write_array, write_json
from palinode.core.work import Work
from palinode.models import loading
from palinode.params.stage_settings import PrepareConcept
from palinode.tasks.concept import training_data
from palinode.training import concept_batches


def run(work: Work, task: str, subject: str) -> None:
    settings = work.settings(PrepareConcept)
    if settings.absent:
        raise Absent(settings.absent)
    if settings.kind == "unconditional":
        raise UserError(f"{task}: a concept needs a conditional base")
    with work.scratch() as scratch:
        model = loading.load(work.input("base"), work.device, kind=settings.kind)
        made = training_data.build(model, settings, int(subject), scratch)
        with atomic(work.output("prompts")) as folder:
            folder.mkdir(parents=True)
            write_json(folder / "prompt_sets.json", dataclasses.asdict(made.prompt_sets))
            if made.real is not None:
                write_array(folder / "real.npy", made.real)
        concept_batches.save(made.data, made.edit_prompts, work.output("training"))
    sets = ", ".join(made.prompt_sets.all)
    print(f"{work.name}: {len(made.prompt_sets.training)} training prompts; prompt sets {sets}")
