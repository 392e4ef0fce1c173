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

    from palinode import text_to_image
    from palinode.memorization import ground, mitigation, prompt_data, roc, split
    from palinode.memorization.prompt_looks import Artist
    from palinode.scratch import Scratch

    folder, name = Path("models") / settings.base, f"split-{task}"
    asked, scores = roc.read_scores(folder / "detect/scores.csv")
    held = read_json(folder / "detect/metrics.json")["scores"].get(mitigation.SCORE, {}).get("held_out")
    threshold = settings.choose.threshold or (held or {}).get("threshold")
    reason = "" if threshold else (held or {}).get("reason", f"{mitigation.SCORE} was not measured")
    with Scratch(name, [path(name), *(folder / part for part in ("base", "detect", "judge"))]) as scratch:
        artist = Artist(text_to_image.load(folder / "base", device()), settings, scratch.folder)
        known, made, refused, order = ground.of(settings.known, folder, settings), [], [], []
        if not reason:
            order = split.flagged(scores[mitigation.SCORE], threshold)
            made, refused = prompt_data.choose(artist, asked, order, scores[mitigation.SCORE], known)
            reason = "" if made else f"none of the {len(refused)} flagged prompts that were tried counts"
        subjects = [subject for subject, *_ in made]
        least = known.quality.least([images for it in subjects for images in it.start.pictures])
        beside = known.beside(asked, order, [it.prompt.text for it in subjects], settings.sample.ordinary)
        ordinary = np.stack([artist.draw(beside.ordinary, use) for use in ("ordinary", "ordinary again")])
        data = prompt_data.PromptData(subjects, refused, reason, least, threshold, beside, ordinary)
        with atomic(out) as place:
            place.mkdir(parents=True)
            for part in ("base", "judge"):
                shutil.copytree(folder / part, place / part)
            prompt_data.save(data, made, place)
    print(f"{task}: {len(made)} prompts, {len(refused)} refused; quality of at least {least:.2f}. {reason}")


if __name__ == "__main__":
    main(run)
