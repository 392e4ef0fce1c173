"""Compute all metrics of one cell, or of a reference row."""

from pathlib import Path

import numpy as np

from palinode.core import estimate
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.errors import Absent
from palinode.core.io import absence, atomic, read_array, read_json, write_arrays, write_json
from palinode.core.scratch import Scratch
from palinode.core.work import Work
from palinode.data.splits import read_subject
from palinode.metrics.image_metrics import Context, evaluate_cell
from palinode.models import unconditional
from palinode.params.stage_settings import EvaluateImages
from palinode.tasks.subjects import check_subject

SHOWN = 256  # samples on the contact sheet


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    """row, seed: `reference` and the name of a reference row, for a row that is not unlearned."""
    reference = seed if row == "reference" else None
    references = Path("out/references") / task
    samples = work.input("samples") if reference is None else references / reference
    reason = absence(samples)
    if reason:
        raise Absent(reason)
    metadata = read_json(work.input(f"tasks/{task}") / "metadata.json")
    check_subject(subject, len(metadata["subjects"]))
    with work.scratch() as scratch:
        context = _gather(work, task, subject, reference, samples, scratch)
        metrics, features = evaluate_cell(context)
        entries, replicates = estimate.pack(metrics)
        with atomic(work.outputs[0]) as out:
            write_json(out / "metrics.json", entries)
            write_arrays(out / "replicates.npz", replicates)
            write_arrays(out / "features.npz", features)
            write_png(out / "contact.png", sheet(np.asarray(context.samples[:SHOWN])), scale=2)


def _gather(work: Work, task: str, subject: str, reference: str | None, samples: Path, scratch: Scratch) -> Context:
    """What the cell is evaluated on."""
    settings = work.settings(EvaluateImages).evaluate
    device = work.device
    data = work.input(f"tasks/{task}")
    metadata = read_json(data / "metadata.json")
    number = int(subject)
    retain, forget = read_subject(data, number, metadata)
    references = Path("out/references") / task
    oracle = absence(references / "oracle") or read_array(references / "oracle" / "samples.npy")
    judge = Path("out/bases") / task / "judge"
    judge_reason = absence(judge)
    folder = work.input("model") if reference is None else Path("out/bases") / task / reference
    cost: dict[str, int] | str = f"row `{reference}` is not unlearned"
    if reference is None:
        cost = read_json(work.input("training") / "cost.json")
    return Context(
        load_model=None if reference == "real" else lambda: unconditional.load(folder, device),
        samples=read_array(samples / "samples.npy"),
        base=read_array(references / "base" / "samples.npy"),
        oracle=oracle,
        reference=read_array(data / f"{metadata['reference']}.npy"),
        retain=retain,
        forget=forget,
        hit_distance=metadata["subjects"][number]["hit_distance"],
        cost=cost,
        settings=settings,
        judge=None if judge_reason else judge,
        judge_reason=judge_reason or "",
        device=str(device),
        scratch=scratch,
    )
