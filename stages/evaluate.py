"""Compute all metrics of one cell: evaluate.py TASK ROW SEED (see palinode.metrics.evaluate)."""

from pathlib import Path

from palinode.io import atomic, read_array, read_json, write_arrays, write_json, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main

REFERENCES = ("base", "oracle", "real")


def run(task: str, row: str, seed: str) -> None:
    from palinode.metrics.evaluate import evaluate_cell
    from palinode.metrics.record import pack
    from palinode.metrics.store import Store
    from palinode.models import absent
    from palinode.scratch import Scratch

    name, here, where = f"evaluate-{task}", cell(task, row, seed), device()
    if reason := absent(here / "samples"):
        write_text(here / "evaluation" / "absent.txt", f"{reason}\n")
        return
    folder = Path("models") / task / row if row in REFERENCES else here / "model"
    inputs = [path(name), here / "samples", *([] if row == "real" else [folder])]
    inputs += [cell(task, role, 0) / "samples" for role in ("base", "oracle")]
    with Scratch(f"{name}-{row}-{seed}", inputs) as scratch:
        metrics, features = evaluate_cell(context(task, row, here, folder, where, Store(scratch.folder)))
        entries, replicates = pack(metrics)
        with atomic(here / "evaluation") as out:
            write_json(out / "metrics.json", entries)
            write_arrays(out / "replicates.npz", replicates)
            write_arrays(out / "features.npz", features)


def context(task: str, row: str, here: Path, folder: Path, where, store):
    from palinode import models
    from palinode.metrics.evaluate import Context

    data, judge = Path("out/data") / task, Path("models") / task / "judge"
    base, oracle = (cell(task, role, 0) / "samples" for role in ("base", "oracle"))
    facts = read_json(data / "facts.json")
    return Context(
        model=None if row == "real" else lambda: models.load(folder, where),
        samples=read_array(here / "samples" / "samples.npy"),
        base=read_array(base / "samples.npy"),
        oracle=models.absent(oracle) or read_array(oracle / "samples.npy"),
        reference=read_array(data / f"{facts['reference']}.npy"),
        **{part: read_array(data / f"{part}.npy") for part in ("retain", "forget")},
        facts=facts,
        cost=f"row `{row}` is not unlearned" if row in REFERENCES else read_json(here / "cost.json"),
        settings=read(f"evaluate-{task}"),
        judge=None if models.absent(judge) else judge,
        judge_reason=models.absent(judge) or "",
        device=str(where),
        store=store,
    )


if __name__ == "__main__":
    main(run)
