"""Refuse an unconditional base that has not memorized what it should have, or draws badly."""

from palinode.bases import image_checks
from palinode.classifiers import storage
from palinode.core.errors import Absent, UserError
from palinode.core.io import atomic, read_array, read_json, write_json
from palinode.core.work import Work
from palinode.models import unconditional
from palinode.params.image_tasks import Sample
from palinode.params.stage_settings import GateImages
from palinode.sampling.unprompted import sample


def run(work: Work) -> None:
    settings = work.settings(GateImages)
    limits = settings.gate
    if limits is None:
        raise Absent(settings.reason)
    _, data, model_folder, judge_folder = work.inputs
    with work.scratch() as scratch:
        model = unconditional.load(model_folder, work.device)
        key = (settings.root_seed, f"{settings.name} gate")
        drawing = Sample(sampler="ddpm", precision="fp32", count=limits.samples, steps=limits.steps, chunk=limits.chunk)
        images = sample(model, key, drawing, scratch, work.name)
        values = image_checks.measure(
            images,
            train=read_array(data / "train.npy"),
            repeated=read_array(data / "repeated.npy"),
            reference=read_array(data / ("reference.npy" if (data / "reference.npy").exists() else "train.npy")),
            hit_distance=read_json(data / "metadata.json")["hit_distance"],
            judge=storage.load(judge_folder),
        )
        print(f"{work.name}: {values}")
        problem = image_checks.problem(values, limits)
        if problem:
            raise UserError(f"{work.name}: {problem}")
        with atomic(work.outputs[0]) as out:
            write_json(out / "gate.json", values | {"limits": limits.model_dump()})
