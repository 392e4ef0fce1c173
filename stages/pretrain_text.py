"""Train a text-to-image base, or an oracle that never saw one thing: pretrain_text.py BASE [WITHOUT].

A base with a `source` is that model, by its name alone; it has no oracles.
"""

from pathlib import Path

from palinode.errors import UserError
from palinode.io import write_text
from palinode.settings import path, read
from palinode.stage import device, main

GUIDANCE, STEPS = 3.0, 20  # of the pictures drawn while training


def run(base: str, without: str | None = None) -> None:
    name, role = f"pretrain-text-{base}", f"without-{without}" if without else "base"
    settings, folder = read(name), Path("models") / base
    if settings.source is not None:
        reason = f"{base} is {settings.source}, which is not trained here\n"
        if without:
            write_text(folder / role / "absent.txt", reason)
        else:
            from palinode.models import name_source

            name_source(folder / role, settings.source)
        write_text(folder / "training" / role / "absent.txt", reason)
        return
    from palinode import conditional_sampling, text_to_image
    from palinode.data import emoji
    from palinode.data.captions import STYLES
    from palinode.data.scenes import World
    from palinode.scratch import Scratch
    from palinode.text_pretraining import pretrain

    world, left_out = World.read(), {without} - {None}
    if left_out - {*world.concepts, *STYLES, "memorized"}:
        raise UserError(f"text.oracles: {without!r} is no concept, no style and not 'memorized'")
    where, inputs, prompts = device(), [path(name), emoji.FOLDER], world.examples

    def preview(model):
        return conditional_sampling.draw(model, prompts, (settings.root_seed, base), GUIDANCE, STEPS)

    def scratch(phase):
        return Scratch(f"{name}-{role}-{phase}", inputs)

    outcome = pretrain(world, settings, scratch, where, f"{role}@{base}", preview, left_out)
    text_to_image.save(outcome.model, folder / role)
    outcome.write_progress(folder / "training" / role)


if __name__ == "__main__":
    main(run)
