"""Train the judge of captioned scenes: judge_scenes.py BASE."""

from pathlib import Path

from palinode.errors import UserError
from palinode.io import write_text
from palinode.settings import path, read
from palinode.stage import device, main

ACCURACY = 0.99  # below this on held-out pictures the judge cannot be trusted
BATCHES = 16  # of 256


def run(base: str) -> None:
    name, folder = f"judge-scenes-{base}", Path("models") / base / "judge"
    settings = read(name)
    if settings.training is None:
        write_text(folder / "absent.txt", f"no judge knows what {base} draws\n")
        return
    from palinode import judge as judge_files
    from palinode import scene_judge
    from palinode.data import emoji
    from palinode.data.scenes import World
    from palinode.scratch import Scratch

    device()
    world, others = World.read(), emoji.read_drawings(emoji.FOLDER, "others.npy")
    key = (settings.root_seed, "judge", base)
    with Scratch(name, [path(name), emoji.FOLDER]) as scratch:
        judge = scene_judge.train(world, others, key, settings.training, scratch)
        found = scene_judge.accuracy(judge, scene_judge.Stream(world, others, 256, (*key, "test")), BATCHES)
        unseen = scene_judge.unseen(judge, scene_judge.Stream(world, others, 1, key, held=True), 256 * BATCHES, key)
        print(f"judge@{base}: {found}, unseen drawings: {unseen}")
        worst = min(found["concept"], found["style"])
        if worst < ACCURACY:
            raise UserError(f"judge@{base}: accuracy {worst:.4f} is below {ACCURACY}")
        judge_files.save(judge, folder, {"test": found, "unseen": unseen})


if __name__ == "__main__":
    main(run)
