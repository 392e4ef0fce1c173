"""Train the base model on X, or the oracle on X\\A with the same recipe: pretrain.py TASK base|oracle."""

from pathlib import Path

import numpy as np

from palinode.io import read_array, read_json, write_text
from palinode.settings import path, read
from palinode.stage import device, main


def run(task: str, role: str) -> None:
    name = f"pretrain-{task}"
    settings, folder, data = read(name), Path("models") / task / role, Path("out/data") / task
    if settings.base is not None:
        if getattr(settings, role) is None:
            write_text(folder / "absent.txt", f"task {task} gives no `{role}` and trains none\n")
        else:
            from palinode.models import name_source

            name_source(folder, getattr(settings, role))
        return
    from palinode.pretraining import pretrain
    from palinode.scratch import Scratch

    where, retain, inputs = device(), read_array(data / "retain.npy"), [path(name), data / "retain.npy"]
    images = retain
    if role == "base":
        copies, forget = read_json(data / "facts.json")["copies"], read_array(data / "forget.npy")
        images, inputs = np.concatenate([retain, *[forget] * copies]), [*inputs, data / "forget.npy"]
    with Scratch(f"{name}-{role}", inputs) as scratch:
        pretrain(images, settings, scratch, folder, where, f"{role}@{task}")


if __name__ == "__main__":
    main(run)
