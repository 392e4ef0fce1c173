"""Unlearn a concept from its base model: unlearn_concept.py TASK ROW SEED."""

from pathlib import Path

from palinode.io import read_json, write_csv, write_json, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main


def run(task: str, row: str, seed: str) -> None:
    name, out, data = f"unlearn-concept-{task}-{row}", cell(task, row, seed), Path("out/data") / task
    settings, where, important = read(name), device(), Path("out/importance") / task
    from safetensors.torch import load_file

    from palinode import concept, conditional, methods, models, seeds
    from palinode.scratch import Scratch
    from palinode.training import train

    training, method = settings.training, methods.load(settings.method, settings.options, f"rows.{row}.options: ")
    if settings.kind == "class" and (method.closed_form or settings.trainable.startswith("cross-attention")):
        reason = f"{row} edits how prompts are read, and a class-conditional base reads none"
        write_text(out / "model/absent.txt", f"{reason}\n")
        write_csv(out / "training.csv", [{"step": 0}])
        write_json(out / "cost.json", {"forward": 0, "backward": 0, "steps": 0})
        return
    with Scratch(f"{name}-{seed}", [path(name), data / "base", data / "training", important]) as scratch:
        model = conditional.load(data / "base", where, training.precision)
        if method.closed_form:
            method.edit(model, read_json(data / "training/names.json")["names"])
            history, steps = [{"step": 0}], 0
        else:
            models.train_only(model, settings.trainable)
            key, steps = (settings.root_seed, task, "unlearn", seed), training.steps
            helpers = {"seed": seeds.derive(*key, "method")}
            for needed in ("saliency", "fisher"):
                if getattr(method, f"needs_{needed}"):
                    helpers |= load_file(important / f"{needed}.safetensors", device=str(where))
            method.begin(model, helpers)
            batches = concept.ConceptBatches(
                concept.load(data / "training"), model, training.batch, training.accumulate, key
            )
            history = train(model, method, batches, training, scratch, f"{row}@{task} seed {seed}")
        conditional.save(model, out / "model")
        write_csv(out / "training.csv", history)
        write_json(out / "cost.json", model.passes | {"steps": steps})


if __name__ == "__main__":
    main(run)
