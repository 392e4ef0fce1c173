"""Gather what a concept task needs in one folder: prepare_concept.py TASK.

out/data/<task>/: base, oracle and judge (copies, or absent.txt), strata.json, real.npy where there are real pictures,
and what unlearning trains on.
"""

import dataclasses
import shutil
from pathlib import Path

from palinode.io import atomic, write_array, write_json, write_text
from palinode.settings import path, read
from palinode.stage import device, main


def run(task: str) -> None:
    name = f"prepare-concept-{task}"
    settings, out = read(name), Path("out/data") / task
    from palinode import concept, concept_data, conditional
    from palinode.scratch import Scratch

    models, listed = Path("models") / settings.base, [Path(settings.prompts)] if settings.prompts else []
    model = conditional.load(models / "base", device())
    with Scratch(name, [path(name), models / "base", *listed]) as scratch, atomic(out) as folder:
        prompts, data, real, names = concept_data.build(model, settings, scratch.folder)
        folder.mkdir(parents=True)
        shutil.copytree(models / "base", folder / "base")
        shutil.copytree(models / "judge", folder / "judge")
        oracle = models / f"without-{settings.target}"
        if oracle.is_dir():
            shutil.copytree(oracle, folder / "oracle")
        else:
            write_text(folder / "oracle/absent.txt", f"no model was trained without {settings.target}\n")
        write_json(folder / "strata.json", dataclasses.asdict(prompts))
        if real is not None:
            write_array(folder / "real.npy", real)
        concept.save(data, folder / "training")
        write_json(folder / "training/names.json", {"names": names})
    print(f"{task}: {len(prompts.given)} given prompts; strata {', '.join(prompts.forget | prompts.keep)}")


if __name__ == "__main__":
    main(run)
