"""Take the memory out of the prompts that `detect` flags, at sampling time: mitigate.py BASE."""

import numpy as np
from tqdm import tqdm

from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.io import atomic, read_json, write_csv, write_json
from palinode.core.work import Work
from palinode.data.prompt_lists import KINDS
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import mitigation, roc
from palinode.models import text_to_image
from palinode.params.stage_settings import Mitigate
from palinode.pipeline.stage import main

COLUMNS = ("prompt", "kind", "before", "after", "words")


def run(work: Work, base: str) -> None:
    settings = work.settings(Mitigate)
    detect = work.input("detect")
    prompts, scores = roc.read_scores(detect / "scores.csv")
    held = read_json(detect / "metrics.json")["scores"].get(mitigation.SCORE, {}).get("held_out", {})
    results: list[mitigation.Mitigated] = []
    summary: dict = {"reason": held.get("reason", f"{mitigation.SCORE} was not measured")}
    if "threshold" in held:
        target = held["threshold"]
        flagged = np.flatnonzero(scores[mitigation.SCORE] >= target).tolist()
        model = text_to_image.load(work.input("model"), work.device)
        results = mitigation.run(model, prompts, flagged, target, settings, (settings.root_seed, base), tqdm)
        known = None
        if settings.ground_truth != "list":
            judge = storage.load(work.input("judge"), SceneJudge)
            known = mitigation.Shown(EmojiCorpus.read(name=settings.ground_truth), judge)
        summary = mitigation.summarise(results, prompts, target, known)
    for kind, entry in summary.get("kinds", {}).items():
        copies = " -> ".join(f"{share['value']:.0%}" for share in entry.get("copies", []))
        shown = copies or "not looked for"
        print(f"{work.name}: {kind}: {entry['flagged']} of {entry['prompts']} flagged; copies {shown}")
    with atomic(work.outputs[0]) as out:
        out.mkdir()
        write_json(out / "metrics.json", summary)
        write_csv(out / "prompts.csv", [_line(result) for result in results], COLUMNS)
        pictures = [result.pictures for result in results if KINDS[result.prompt.kind] is not False]
        if pictures:
            images = np.concatenate(pictures).reshape(-1, *pictures[0].shape[2:])
            write_png(out / "pictures.png", sheet(images, 4 * settings.generations))


def _line(result: mitigation.Mitigated) -> dict:
    words = " ".join(f"{word}:{value:.3f}" for word, value in result.words)
    named = {"prompt": result.prompt.text, "kind": result.prompt.kind}
    return named | {"before": result.before, "after": result.after, "words": words}


if __name__ == "__main__":
    main(run)
