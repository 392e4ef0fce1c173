"""Refuse a base model that has not memorised the forget set, or draws badly: gate.py TASK."""

from pathlib import Path

from palinode.errors import UserError
from palinode.io import read_array, read_json, write_json
from palinode.settings import path, read
from palinode.stage import device, main


def run(task: str) -> None:
    settings, out = read(f"gate-{task}"), Path("models") / task / "gate.json"
    if settings.gate is None:
        write_json(out, {"gate": None})
        return
    from palinode import gate, judge, models, sampling
    from palinode.scratch import Scratch

    where, data, base = device(), Path("out/data") / task, Path("models") / task / "base"
    limits, sample = settings.gate, settings.sample
    with Scratch(f"gate-{task}", [path(f"gate-{task}"), base]) as scratch:
        model = models.load(base, where)
        key = (settings.root_seed, f"{task} gate")
        images = sampling.sample_all(model, key, limits.samples, sample, scratch, f"gate@{task}")
        arrays = {name: read_array(data / f"{name}.npy") for name in ("retain", "forget", "reference")}
        hit_distance = read_json(data / "facts.json")["hit_distance"]
        values = gate.measure(images, arrays, hit_distance, judge.load(Path("models") / task / "judge"))
        print(f"gate@{task}: {values}")
        problem = gate.problem(values, limits)
        if problem:
            raise UserError(f"gate@{task}: {problem}")
        write_json(out, values | {"limits": vars(limits)})


if __name__ == "__main__":
    main(run)
