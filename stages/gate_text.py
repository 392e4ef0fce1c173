"""Refuse a text-to-image base that cannot draw, or has not memorised what it should have: gate_text.py BASE."""

from pathlib import Path

from palinode.contact import write_png
from palinode.errors import UserError
from palinode.io import atomic, write_json, write_text
from palinode.settings import path, read
from palinode.stage import device, main


def run(base: str) -> None:
    name, folder = f"gate-text-{base}", Path("models") / base
    settings = read(name)
    if settings.gate is None:
        write_text(folder / "gate/absent.txt", f"{base} was trained elsewhere: no judge knows what it draws\n")
        return
    from palinode import conditional_sampling, text_gate, text_to_image
    from palinode import judge as judge_files
    from palinode.data.scenes import World
    from palinode.scene_judge import SceneJudge
    from palinode.scratch import Scratch

    world, limits, key = World.read(), settings.gate, (settings.root_seed, base)
    with Scratch(name, [path(name), folder / "base", folder / "judge"]) as scratch:
        model, judge = text_to_image.load(folder / "base", device()), judge_files.load(folder / "judge", SceneJudge)
        asked = text_gate.requests(world, key)
        prompts = [request.prompt for request in asked]
        images = conditional_sampling.draw(model, prompts, key, limits.guidance, limits.steps, scratch.folder)
        seen = text_gate.look(images, judge)
        found = text_gate.measure(images, asked, world, seen)
        for group, values in found.items():
            shares = ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items())
            print(f"{name}: {group}: {shares} of {max(v['n'] for v in values.values())}")
        problem = text_gate.problem(found, limits)
        if problem:
            raise UserError(f"{name}: {problem}")
        with atomic(folder / "gate") as out:
            facts = {
                "groups": found,
                "alignment": text_gate.alignment(images, asked, judge, world, key),
                "confusion": text_gate.confusion(asked, world, seen),
                "limits": vars(limits),
            }
            write_json(out / "gate.json", facts)
            for sheet, picture in text_gate.sheets(images, asked, world).items():
                write_png(out / f"{sheet}.png", picture)


if __name__ == "__main__":
    main(run)
