"""Unlearn the forget set from the base model: unlearn.py TASK ROW SEED."""

from pathlib import Path

from palinode.io import read_array, write_csv, write_json
from palinode.settings import path, read
from palinode.stage import cell, device, main


def run(task: str, row: str, seed: str) -> None:
    from palinode import methods, models
    from palinode.scratch import Scratch
    from palinode.training import Batches, train

    name, out, data, base = (
        f"unlearn-{task}-{row}",
        cell(task, row, seed),
        Path("out/data") / task,
        Path("models") / task / "base",
    )
    settings, where = read(name), device()
    training = settings.training
    method = methods.load(settings.method, settings.options, f"rows.{row}.options: ")
    retain, forget = (read_array(data / f"{part}.npy") for part in ("retain", "forget"))
    with Scratch(f"{name}-{seed}", [path(name), base, data / "retain.npy", data / "forget.npy"]) as scratch:
        model = models.load(base, where, training.precision)
        key = (settings.root_seed, task, "unlearn", seed)
        batches = Batches(retain, forget, len(model.schedule), training.batch, training.accumulate, where, key)
        history = train(model, method, batches, training, scratch, f"{row}@{task} seed {seed}")
        models.save(model, out / "model")
        write_csv(out / "training.csv", history)
        write_json(out / "cost.json", model.passes | {"steps": training.steps})


if __name__ == "__main__":
    main(run)
