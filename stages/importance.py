"""Which weights matter, for the methods that ask: importance.py TASK."""

from pathlib import Path

from palinode.io import atomic
from palinode.settings import read
from palinode.stage import device, main


def run(task: str) -> None:
    settings, data, out = read(f"importance-{task}"), Path("out/data") / task, Path("out/importance") / task
    from safetensors.torch import save_file

    from palinode import concept, conditional, importance, seeds

    key = (settings.root_seed, task, "importance")
    model, training = conditional.load(data / "base", device()), concept.load(data / "training")
    batches = concept.ConceptBatches(training, model, settings.batch, 1, key)
    pictures, draws = settings.fisher
    x, shown = training.x[:pictures].to(model.device), batches.conditions[training.kept[:pictures]]
    found = {
        "saliency": importance.saliency(model, (next(batches(step)) for step in range(settings.saliency))),
        "fisher": importance.fisher(model, x, shown, draws, seeds.generator(*key, "fisher")),
    }
    with atomic(out) as folder:
        folder.mkdir(parents=True)
        for name, vector in found.items():
            save_file({name: vector.cpu()}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(run)
