"""Score prompts of a text-to-image base for memorization: detect.py BASE."""

from palinode.core.io import atomic, write_csv, write_json
from palinode.core.work import Work
from palinode.data import prompt_lists
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import probe, roc
from palinode.models import text_to_image
from palinode.params.stage_settings import Detect
from palinode.pipeline.stage import main


def run(work: Work, base: str) -> None:
    settings = work.settings(Detect)
    if settings.prompts:
        prompts = prompt_lists.read(settings.prompts)
    else:
        assert settings.ground_truth != "list"
        prompts = prompt_lists.of_corpus(EmojiCorpus.read(name=settings.ground_truth))
    with work.scratch() as scratch:
        model = text_to_image.load(work.input("model"), work.device)
        texts = [prompt.text for prompt in prompts]
        scores = probe.measure(model, texts, settings.detectors, settings, (settings.root_seed, base), scratch)
    costs = probe.score_costs(settings.detectors, settings.steps)
    metrics = roc.table(scores, prompts, costs, settings.generations)
    metrics["settings"] = {key: getattr(settings, key) for key in ("generations", "steps", "guidance")}
    for score, measured in metrics["scores"].items():
        auc = measured["all"]["auc"]
        shown = auc["reason"] if auc["value"] is None else f"AUC {auc['value']:.3f}"
        print(f"{work.name}: {score}: {shown}, {measured['nfe']} network evaluations a prompt")
    lines = [
        {"prompt": prompt.text, "kind": prompt.kind, "detector": score, "score": float(value)}
        for score, values in scores.items()
        for prompt, value in zip(prompts, values, strict=True)
    ]
    with atomic(work.outputs[0]) as out:
        out.mkdir()
        write_json(out / "metrics.json", metrics)
        write_csv(out / "scores.csv", lines, digits=9)


if __name__ == "__main__":
    main(run)
