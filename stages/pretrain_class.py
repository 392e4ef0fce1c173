"""Train a class-conditional base, or an oracle that never saw one class: pretrain_class.py BASE [WITHOUT]."""

from pathlib import Path

from palinode.io import read_array
from palinode.settings import path, read
from palinode.stage import device, main

GUIDANCE, STEPS = 2.0, 20  # of the pictures drawn while training


def run(base: str, without: str | None = None) -> None:
    name, data = f"pretrain-class-{base}", Path("out/data") / base
    settings = read(name)
    import torch

    from palinode import conditional_sampling, models
    from palinode.class_conditional import pretrain
    from palinode.scratch import Scratch

    role = "base" if without is None else f"without-{without}"
    where, inputs = device(), [path(name), data / "train.npy", data / "train-labels.npy"]
    images, labels = (read_array(file) for file in inputs[1:])

    def preview(model):
        classes = [*range(model.classes), None, None]
        return conditional_sampling.draw(model, classes, (settings.root_seed, base), GUIDANCE, STEPS)

    with Scratch(f"{name}-{role}", inputs) as scratch:
        left_out = None if without is None else int(without)
        outcome = pretrain(images, labels, settings, scratch, where, f"{role}@{base}", preview, left_out)
        models.save(outcome.model, Path("models") / base / role, torch.float16)
        outcome.write_progress(Path("models") / base / "training" / role)


if __name__ == "__main__":
    main(run)
