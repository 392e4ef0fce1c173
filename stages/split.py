"""Choose memorised prompts and split their pictures into what to forget and what to keep: split.py TASK.

out/data/<task>/: base and judge (copies), prompts.json, arrays.npz, clusters.png (where a prompt counts).
"""

import shutil
from pathlib import Path

from palinode.io import atomic, read_json
from palinode.settings import path, read
from palinode.stage import device, main


def run(task: str) -> None:
    settings, out = read(f"split-{task}"), Path("out/data") / task
    import numpy as np

    from palinode import judge, text_to_image
    from palinode.data.scenes import World
    from palinode.memorization import mitigation, prompt_data, prompt_metrics, roc
    from palinode.memorization.prompt_looks import Artist
    from palinode.scene_judge import SceneJudge
    from palinode.scratch import Scratch

    folder, world, name = Path("models") / settings.base, World.read(), f"split-{task}"
    asked, scores = roc.read_scores(folder / "detect/scores.csv")
    held = read_json(folder / "detect/metrics.json")["scores"].get(mitigation.SCORE, {}).get("held_out")
    reason = held.get("reason", "") if held else f"{mitigation.SCORE} was not measured"
    with Scratch(name, [path(name), *(folder / part for part in ("base", "detect", "judge"))]) as scratch:
        artist = Artist(text_to_image.load(folder / "base", device()), settings, scratch.folder)
        made, refused = [], []
        if not reason:
            made, refused = prompt_data.choose(artist, asked, scores[mitigation.SCORE], held["threshold"], world)
            reason = "" if made else f"none of the {len(refused)} flagged prompts that were tried counts"
        eyes = judge.load(folder / "judge", SceneJudge)
        real = prompt_metrics.realism(eyes, world, settings.sample.real, (settings.root_seed, task))
        least = prompt_metrics.least([subject.start for subject, *_ in made], real)
        ordinary = np.stack([artist.ordinary(world, use) for use in ("ordinary", "ordinary again")])
        data = prompt_data.PromptData([subject for subject, *_ in made], refused, reason, least, ordinary)
        with atomic(out) as place:
            place.mkdir(parents=True)
            for part in ("base", "judge"):
                shutil.copytree(folder / part, place / part)
            prompt_data.save(data, made, place)
    print(f"{task}: {len(made)} prompts, {len(refused)} refused; realism of at least {least:.2f}. {reason}")


if __name__ == "__main__":
    main(run)
