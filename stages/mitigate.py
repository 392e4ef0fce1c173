"""Take the memory out of the prompts that `detect` flags, at sampling time: mitigate.py BASE."""

from pathlib import Path

from palinode.io import atomic, read_json, write_csv, write_json
from palinode.settings import read
from palinode.stage import device, main


def run(base: str) -> None:
    name, folder = f"mitigate-{base}", Path("models") / base
    settings = read(name)
    import numpy as np
    from tqdm import tqdm

    from palinode import text_to_image
    from palinode.contact import sheet, write_png
    from palinode.data.scenes import World
    from palinode.memorization import mitigation, roc
    from palinode.memorization.prompts import KINDS

    asked, scores = roc.read_scores(folder / "detect/scores.csv")
    held = read_json(folder / "detect/metrics.json")["scores"].get(mitigation.SCORE, {}).get("held_out")
    done, found = [], {"reason": held.get("reason") if held else f"{mitigation.SCORE} was not measured"}
    if not found["reason"]:
        target = held["threshold"]
        flagged = np.flatnonzero(scores[mitigation.SCORE] >= target).tolist()
        model, key = text_to_image.load(folder / "base", device()), (settings.root_seed, base)
        done = mitigation.run(model, asked, flagged, target, settings, key, tqdm)
        found = mitigation.summary(done, asked, target, World.read() if settings.known == "emoji" else None)
    for kind, entry in found.get("kinds", {}).items():
        copies = " -> ".join(f"{it['value']:.0%}" for it in entry.get("copies", []))
        print(f"{name}: {kind}: {entry['flagged']} of {entry['prompts']} flagged; copies {copies or 'not looked for'}")
    with atomic(folder / "mitigation") as out:
        out.mkdir()
        write_json(out / "metrics.json", found)
        lines = [{"prompt": it.prompt.text, "kind": it.prompt.kind, "before": it.before, "after": it.after,
                  "words": " ".join(f"{word}:{value:.3f}" for word, value in it.words)} for it in done]  # fmt: skip
        write_csv(out / "prompts.csv", lines, ("prompt", "kind", "before", "after", "words"))
        pictures = [it.pictures for it in done if KINDS[it.prompt.kind] is not False]
        if pictures:
            images = np.concatenate(pictures).reshape(-1, *pictures[0].shape[2:])
            write_png(out / "pictures.png", sheet(images, 4 * settings.generations))


if __name__ == "__main__":
    main(run)
