"""The prompts, the pictures and the trajectories that one subject of a concept task trains on and is measured by.

out/tasks/<task>/<subject>/: prompt_sets.json, real.npy where there are real pictures, and training/.
"""

import dataclasses

from palinode.core.errors import UserError
from palinode.core.io import atomic, write_array, write_json
from palinode.core.work import Work
from palinode.models import loading
from palinode.params.stage_settings import PrepareConcept
from palinode.tasks.concept import training_data
from palinode.tasks.subjects import check_subject
from palinode.training import concept_batches


def run(work: Work, task: str, subject: str) -> None:
    settings = work.settings(PrepareConcept)
    number = check_subject(subject, settings.subjects)
    if settings.kind == "unconditional":
        raise UserError(f"{task}: a concept needs a conditional base")
    with work.scratch() as scratch, atomic(work.outputs[0]) as folder:
        model = loading.load(work.input("base"), work.device, kind=settings.kind)
        made = training_data.build(model, settings, number, scratch)
        folder.mkdir(parents=True)
        write_json(folder / "prompt_sets.json", dataclasses.asdict(made.prompt_sets))
        if made.real is not None:
            write_array(folder / "real.npy", made.real)
        concept_batches.save(made.data, folder / "training")
        write_json(folder / "training/edit_prompts.json", made.edit_prompts)
    sets = ", ".join(made.prompt_sets.all)
    print(f"{work.name}: {len(made.prompt_sets.training)} training prompts; prompt sets {sets}")
