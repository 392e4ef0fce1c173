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
    if settings.gradient_checkpointing:
        model.net.enable_gradient_checkpointing()
    pictures, draws = settings.fisher
    x, shown = training.x[:pictures].to(model.device), batches.conditions[training.kept[:pictures]]
    vectors = {
        "saliency": lambda: importance.saliency(model, (next(batches(step)) for step in range(settings.saliency))),
        "fisher": lambda: importance.fisher(model, x, shown, draws, seeds.generator(*key, "fisher")),
    }
    with atomic(out) as folder:
        folder.mkdir(parents=True)
        for name, measured in vectors.items():  # one at a time: each is as large as the network
            save_file({name: measured().cpu()}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(run)
