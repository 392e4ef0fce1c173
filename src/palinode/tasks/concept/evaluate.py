"""Compute all metrics of one concept cell, or of a reference row."""

from pathlib import Path

import numpy as np

from palinode.classifiers import concept_classifiers
from palinode.core import estimate
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.errors import Absent
from palinode.core.io import absence, atomic, read_array, read_json, write_arrays, write_json
from palinode.core.work import Work
from palinode.data.captions import Caption
from palinode.data.prompt_sets import PromptSets
from palinode.metrics import concept_metrics, integrity, pieces, second_judge
from palinode.metrics.features import EfficientNetLite0
from palinode.params.stage_settings import EvaluateConcept

NOT_REAL = "there are no real pictures of what the retained prompts ask for"


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    """row, seed: `reference` and the name of a reference row, for a row that is not unlearned."""
    settings = work.settings(EvaluateConcept)
    reference = seed if row == "reference" else None
    references = work.input(f"references/{task}/{subject}")
    samples = work.input("samples") if reference is None else references / reference
    data = work.input("prompts")
    reason = absence(data) or absence(samples)
    if reason:
        raise Absent(reason)
    device = work.device
    sets = PromptSets.from_json(read_json(data / "prompt_sets.json"))
    real = data / "real.npy"
    lpips: integrity.Distance | str = concept_metrics.NO_TRUNK
    if settings.lpips_trunk:
        lpips = integrity.lpips_alex(settings.lpips_trunk)
    network = EfficientNetLite0(device)
    second: second_judge.TargetLooker | str | None = absence(work.input("second-judge"))
    if second is None:
        second = second_judge.look_for(second_judge.load(work.input("second-judge"), network), settings.target)
    oracle = references / "oracle"
    context = concept_metrics.Context(
        samples=_split(samples, sets.all),
        base=_split(references / "base", sets.all),
        other_seed=_split(references / "other-seed", sets.all),
        oracle=absence(oracle) or _split(oracle, sets.all),
        prompts=sets.all,
        forget=list(sets.forget),
        retain=list(sets.retain),
        real=read_array(real) if real.exists() else NOT_REAL,
        classifier=concept_classifiers.load(work.input("judge"), settings.kind, settings.target),
        second=second,
        second_network=network,
        bootstrap=settings.bootstrap,
        lpips=lpips,
    )
    metrics = concept_metrics.evaluate(context)
    if reference is None:
        metrics |= pieces.measure_cost(read_json(work.input("training") / "cost.json"))
    entries, replicates = estimate.pack(metrics)
    with atomic(work.outputs[0]) as out:
        write_json(out / "metrics.json", entries)
        write_arrays(out / "replicates.npz", replicates)
        each = len(next(iter(sets.all.values())))
        write_png(out / "contact.png", sheet(np.asarray(read_array(samples / "samples.npy")), each), scale=1)


def _split(folder: Path, sets: dict[str, list[Caption]]) -> dict[str, np.ndarray]:
    """Samples by prompt set: they were drawn in this order."""
    images = read_array(folder / "samples.npy")
    parts = {}
    first = 0
    for name, captions in sets.items():
        parts[name] = images[first : first + len(captions)]
        first += len(captions)
    return parts
