"""Draw what each stratum asks for: sample_concept.py TASK ROW SEED.

Reference rows: base, oracle, and other, the base model from another noise.
"""

from pathlib import Path

from palinode.contact import sheet, write_png
from palinode.io import read_json, write_array, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main

REFERENCES = {"base": "base", "oracle": "oracle", "other": "base"}


def run(task: str, row: str, seed: str) -> None:
    name, out, data = f"sample-concept-{task}", cell(task, row, seed) / "samples", Path("out/data") / task
    settings = read(name)
    from palinode import conditional, conditional_sampling
    from palinode.models import absent
    from palinode.scratch import Scratch

    folder = data / REFERENCES[row] if row in REFERENCES else cell(task, row, seed) / "model"
    if reason := absent(folder):
        write_text(out / "absent.txt", f"{reason}\n")
        return
    strata = read_json(data / "strata.json")
    captions = [it for part in ("forget", "keep") for some in strata[part].values() for it in some]
    asked = [conditional.prompt(caption["text"], settings.kind) for caption in captions]
    key = (settings.root_seed, f"{task} other" if row == "other" else task)
    with Scratch(f"{name}-{row}-{seed}", [path(name), data / "strata.json", folder]) as scratch:
        model = conditional.load(folder, device())
        rest = (settings.sample.guidance, settings.sample.steps, scratch.folder, settings.sample.chunk)
        images = conditional_sampling.draw(model, asked, key, *rest)
        write_array(out / "samples.npy", images)
        write_png(out / "contact.png", sheet(images, settings.sample.each), scale=1)


if __name__ == "__main__":
    main(run)
