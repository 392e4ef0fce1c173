"""Score prompts of a text-to-image base for memorisation: detect.py BASE."""

from pathlib import Path

from palinode.io import atomic, write_csv, write_json
from palinode.settings import path, read
from palinode.stage import device, main


def run(base: str) -> None:
    name, folder = f"detect-{base}", Path("models") / base
    settings = read(name)
    from palinode import text_to_image
    from palinode.data.scenes import World
    from palinode.memorization import probe, prompts, roc
    from palinode.scratch import Scratch

    asked = prompts.read(settings.prompts) if settings.prompts else prompts.of_world(World.read())
    listed = [Path(settings.prompts)] if settings.prompts else []
    with Scratch(name, [path(name), folder / "base", *listed]) as scratch:
        model, key = text_to_image.load(folder / "base", device()), (settings.root_seed, base)
        scores = probe.measure(model, [prompt.text for prompt in asked], settings, key, scratch.folder)
        metrics = roc.table(scores, asked, probe.score_costs(settings.detectors, settings.steps), settings.generations)
        metrics["settings"] = {key: getattr(settings, key) for key in ("generations", "steps", "guidance")}
        for score, found in metrics["scores"].items():
            value = found["all"]["auc"]["value"]
            auc = found["all"]["auc"]["reason"] if value is None else f"AUC {value:.3f}"
            print(f"{name}: {score}: {auc}, {found['passes']} passes a prompt")
        with atomic(folder / "detect") as out:
            out.mkdir()
            write_json(out / "metrics.json", metrics)
            lines = [{"prompt": prompt.text, "kind": prompt.kind, "detector": score, "score": float(value)}
                     for score, values in scores.items()
                     for prompt, value in zip(asked, values, strict=True)]  # fmt: skip
            write_csv(out / "scores.csv", lines, digits=9)


if __name__ == "__main__":
    main(run)
