"""Refuse a text-to-image base that cannot draw, or has not memorised what it should have: gate_text.py BASE."""

from pathlib import Path

from palinode.contact import sheet, write_png
from palinode.errors import UserError
from palinode.io import write_array, write_json
from palinode.settings import read
from palinode.stage import device, main


def run(base: str) -> None:
    settings, models, out = read(f"gate-text-{base}"), Path("models") / base, Path("out/text") / base
    from palinode import judge as judge_files
    from palinode import text_gate, text_sampling, text_to_image
    from palinode.data.scenes import World
    from palinode.scene_judge import SceneJudge

    world, limits = World.read(), settings.gate
    key = (settings.root_seed, base)
    model, judge = text_to_image.load(models / "base", device()), judge_files.load(models / "judge", SceneJudge)
    asked = text_gate.requests(world, key)
    prompts = [request.prompt for request in asked]
    images = text_sampling.draw(model, prompts, key, limits.guidance, limits.steps)
    found = text_gate.measure(images, asked, world, judge)
    for group, values in found.items():
        shares = ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items())
        print(f"gate@{base}: {group}: {shares} of {max(v['n'] for v in values.values())}")
    problem = text_gate.problem(found, limits)
    if problem:
        raise UserError(f"gate@{base}: {problem}")
    write_array(out / "samples.npy", images)
    write_png(out / "contact.png", sheet(images[:320]), scale=2)
    write_json(models / "gate.json", found | {"limits": vars(limits)})


if __name__ == "__main__":
    main(run)
