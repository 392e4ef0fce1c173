"""Refuse a class-conditional base that does not draw the class it is asked for: gate_class.py BASE."""

from pathlib import Path

from palinode.contact import sheet, write_png
from palinode.errors import UserError
from palinode.io import atomic, write_json
from palinode.settings import path, read
from palinode.stage import device, main


def run(base: str) -> None:
    name, folder = f"gate-class-{base}", Path("models") / base
    settings = read(name)
    from palinode import class_conditional, class_gate, conditional_sampling, judge, models
    from palinode.scratch import Scratch

    limits, key = settings.gate, (settings.root_seed, f"{base} gate")
    with Scratch(name, [path(name), folder / "base", folder / "judge"]) as scratch:
        model = class_conditional.of(models.load(folder / "base", device()), f"{folder}/base")
        asked = [c for c in range(model.classes) for _ in range(limits.each)]
        images = conditional_sampling.draw(model, asked, key, limits.guidance, limits.steps, scratch.folder)
        found = class_gate.measure(images, asked, judge.load(folder / "judge"))
        print(f"{name}: recognised, by class: {found['recognised']}")
        problem = class_gate.problem(found, limits)
        if problem:
            raise UserError(f"{name}: {problem}")
        with atomic(folder / "gate") as out:
            write_json(out / "gate.json", found | {"limits": vars(limits)})
            some = images.reshape(model.classes, limits.each, *images.shape[1:])[:, :16]
            write_png(out / "samples.png", sheet(some.reshape(-1, *images.shape[1:])), scale=2)


if __name__ == "__main__":
    main(run)
