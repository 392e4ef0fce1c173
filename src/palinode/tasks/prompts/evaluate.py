"""Compute all metrics of one cell of memorized prompts, or of a reference row."""

from palinode.core import estimate
from palinode.core.contact_sheet import write_png
from palinode.core.errors import Absent
from palinode.core.io import absence, atomic, read_json, write_arrays, write_csv, write_json
from palinode.core.work import Work
from palinode.memorization import ground_truth
from palinode.memorization.prompt_sampler import VERSIONS
from palinode.metrics import prompt_metrics
from palinode.params import SEQUENTIAL
from palinode.params.stage_settings import EvaluatePrompts
from palinode.tasks.prompts import comparisons
from palinode.tasks.prompts.snapshots import Snapshots, chosen_prompts
from palinode.tasks.prompts.targets import read_facts


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    """row, seed: `reference` and the name of a reference row, for a row that is not unlearned."""
    settings = work.settings(EvaluatePrompts)
    reference = seed if row == "reference" else None
    drawn = work.input("snapshots" if reference is None else f"{subject}/{reference}")
    folder = work.input("prompts.json").parent
    reason = absence(drawn)
    if reason:
        raise Absent(reason)
    work.set_up_torch()
    facts = read_facts(folder)
    numbers = chosen_prompts(facts, subject)
    compared = comparisons.read(folder, facts)
    snapshots = Snapshots.load(drawn)
    truth = ground_truth.load(
        settings.ground_truth,
        work.input("judge"),
        settings.real,
        (settings.root_seed, settings.name),
        settings.sscd,
    )
    context = prompt_metrics.Context(
        subjects=compared.prompts,
        versions=VERSIONS,
        least_quality=compared.least_quality,
        other_prompts=facts.controls.others,
        base_ordinary=compared.ordinary,
        truth=truth,
        bootstrap=settings.bootstrap,
    )
    lines: list[dict] = []
    by_step = {number: dict(snapshots.by_prompt[number]) for number in numbers}
    if subject == SEQUENTIAL:
        ends = [by_step[number][max(by_step[number])] for number in numbers]
        metrics = prompt_metrics.evaluate_sequential(context, ends, snapshots.ordinary, snapshots.others)
    else:
        (number,) = numbers
        if reference is None:
            by_step[number] = {0: compared.prompts[number].start} | by_step[number]
        metrics, lines = prompt_metrics.evaluate(context, number, by_step[number], snapshots.ordinary, snapshots.others)
    if reference is None:
        cost = read_json(work.input("training") / "cost.json")
        metrics |= {f"nfe_{way}": estimate.exact(cost[way]) for way in ("forward", "backward")}
    entries, replicates = estimate.pack(metrics)
    with atomic(work.outputs[0]) as out:
        write_json(out / "metrics.json", entries)
        write_arrays(out / "replicates.npz", replicates)
        if lines:
            write_csv(out / "steps.csv", lines)
            write_png(out / "strips.png", prompt_metrics.strips(by_step[numbers[0]]))
