"""Train a text-to-image base, or an oracle that never saw one thing: pretrain_text.py BASE [WITHOUT]."""

from pathlib import Path

from palinode.errors import UserError
from palinode.settings import path, read
from palinode.stage import device, main


def run(base: str, without: str | None = None) -> None:
    name = f"pretrain-text-{base}"
    settings = read(name)
    from palinode import text_to_image
    from palinode.data import emoji
    from palinode.data.captions import STYLES
    from palinode.data.scenes import World
    from palinode.scratch import Scratch
    from palinode.text_pretraining import pretrain

    world, left_out = World.read(), {without} - {None}
    if left_out - {*world.concepts, *STYLES, "memorized"}:
        raise UserError(f"text.oracles: {without!r} is no concept, no style and not 'memorized'")
    role = f"without-{without}" if without else "base"
    where, inputs = device(), [path(name), emoji.FOLDER]
    model = pretrain(
        world, settings, lambda phase: Scratch(f"{name}-{role}-{phase}", inputs), where, f"{role}@{base}", left_out
    )
    text_to_image.save(model, Path("models") / base / role)


if __name__ == "__main__":
    main(run)
