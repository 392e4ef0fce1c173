"""Choose memorised prompts and split their pictures into what to forget and what to keep: split.py TASK.

out/data/<task>/: base and judge (copies), prompts.json, arrays.npz, clusters.png (where a prompt counts).
"""

import shutil
from pathlib import Path

from palinode.io import atomic, read_json
from palinode.settings import read
from palinode.stage import device, main


def run(task: str) -> None:
    settings, out = read(f"split-{task}"), Path("out/data") / task
    import numpy as np

    from palinode import judge, text_to_image
    from palinode.data.scenes import World
    from palinode.memorization import mitigation, prompt_data, prompt_metrics, roc
    from palinode.memorization.prompt_looks import Artist
    from palinode.scene_judge import SceneJudge

    folder, world = Path("models") / settings.base, World.read()
    asked, scores = roc.read_scores(folder / "detect/scores.csv")
    held = read_json(folder / "detect/metrics.json")["scores"].get(mitigation.SCORE, {}).get("held_out")
    reason = held.get("reason") if held else f"{mitigation.SCORE} was not measured"
    artist = Artist(text_to_image.load(folder / "base", device()), settings)
    made, refused = [], []
    if not reason:
        made, refused = prompt_data.choose(artist, asked, scores[mitigation.SCORE], held["threshold"], world)
        reason = "" if made else f"none of the {len(refused)} flagged prompts that were tried counts"
    eyes = judge.load(folder / "judge", SceneJudge)
    real = prompt_metrics.realism(eyes, world, settings.sample.real, (settings.root_seed, task))
    subjects = [subject for subject, *_ in made]
    ordinary = np.stack([artist.ordinary(world, use) for use in ("ordinary", "ordinary again")])
    data = prompt_data.PromptData(
        subjects, refused, None if held is None else held.get("threshold"), reason,
        prompt_metrics.least([it.start for it in subjects], real), ordinary,
    )  # fmt: skip
    with atomic(out) as place:
        place.mkdir(parents=True)
        for part in ("base", "judge"):
            shutil.copytree(folder / part, place / part)
        prompt_data.save(data, made, place)
    print(f"{task}: {len(subjects)} prompts, {len(refused)} refused; realism of at least {data.least:.2f}. {reason}")


if __name__ == "__main__":
    main(run)
