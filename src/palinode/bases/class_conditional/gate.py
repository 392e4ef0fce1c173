"""Refuse a class-conditional base that does not draw the class it is asked for."""

from palinode.bases import class_checks
from palinode.classifiers import storage
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.errors import Absent, UserError
from palinode.core.io import atomic, write_json
from palinode.core.work import Work
from palinode.models import class_conditional, unconditional
from palinode.params.stage_settings import GateClasses
from palinode.sampling import prompted

SHOWN = 16  # samples of a class on the contact sheet


def run(work: Work) -> None:
    settings = work.settings(GateClasses)
    limits = settings.gate
    if limits is None:
        raise Absent(settings.reason)
    _, _, model_folder, judge_folder = work.inputs
    key = (settings.root_seed, f"{settings.name} gate")
    with work.scratch() as scratch:
        model = class_conditional.wrap(unconditional.load(model_folder, work.device), str(model_folder))
        classes = [c for c in range(model.classes) for _ in range(limits.each)]
        images = prompted.draw(model, classes, key, limits.guidance, limits.steps, scratch)
        measured = class_checks.measure(images, classes, storage.load(judge_folder))
        print(f"{work.name}: recognised, by class: {measured['recognised']}")
        problem = class_checks.problem(measured, limits)
        if problem:
            raise UserError(f"{work.name}: {problem}")
        with atomic(work.outputs[0]) as out:
            write_json(out / "gate.json", measured | {"limits": limits.model_dump()})
            shown = images.reshape(model.classes, limits.each, *images.shape[1:])[:, :SHOWN]
            write_png(out / "samples.png", sheet(shown.reshape(-1, *images.shape[1:])), scale=2)
