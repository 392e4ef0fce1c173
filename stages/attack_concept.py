"""Attack one concept cell: attack_concept.py TASK ROW SEED ATTACK; relearn or prefix (see palinode.robustness)."""

import dataclasses
from pathlib import Path

from palinode.contact import sheet, write_png
from palinode.io import atomic, read_json, write_arrays, write_csv, write_json, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main

SHOWN = 16  # pictures a step on the contact sheet


def run(task: str, row: str, seed: str, attack: str) -> None:
    name, out, data = f"{attack}-{task}", cell(task, row, seed) / "robustness" / attack, Path("out/data") / task
    settings, where = read(name), device()
    from palinode import concept, conditional, conditional_sampling, robustness
    from palinode.data.strata import Strata
    from palinode.metrics import concept as judged
    from palinode.metrics import record
    from palinode.metrics.robustness import returned
    from palinode.models import absent
    from palinode.scratch import Scratch

    folder = data / row if row in ("base", "oracle") else cell(task, row, seed) / "model"
    if reason := absent(folder):
        write_text(out / "absent.txt", f"{reason}\n")
        return
    captions = Strata.from_json(read_json(data / "strata.json")).forget["T0"]
    asked = [conditional.prompt(caption.text, settings.kind) for caption in captions]
    look = ((settings.root_seed, task), settings.sample.guidance, settings.sample.steps, None, settings.sample.chunk)
    inputs = [path(name), data / "training", data / "strata.json", folder]
    with Scratch(f"{name}-{row}-{seed}", inputs) as scratch:
        model, training = conditional.load(folder, where), concept.load(data / "training")
        if row == "oracle":
            latents = robustness.translated(training.a, conditional.load(data / "base", where), model)
            training = dataclasses.replace(training, a=latents)
        drawn, history = robustness.run(
            attack, model, training, settings, (settings.root_seed, task, attack, seed),
            lambda attacked: conditional_sampling.draw(attacked, asked, *look), scratch, f"{attack} {row}@{task}",
        )  # fmt: skip
        eyes = judged.eyes(data / "judge", settings.kind, settings.target)
        seen = [~eyes(images, captions).missed for images in drawn]
        entries, replicates = record.pack(returned(attack, [0, *settings.budget.steps], seen, settings.bootstrap))
        with atomic(out) as made:
            write_json(made / "metrics.json", entries)
            write_arrays(made / "replicates.npz", replicates)
            write_json(made / "budget.json", {"pictures": len(training.a)} | vars(settings.budget))
            write_csv(made / "training.csv", history)
            shown = drawn[:, :SHOWN]
            write_png(made / "contact.png", sheet(shown.reshape(-1, *shown.shape[2:]), shown.shape[1]))


if __name__ == "__main__":
    main(run)
