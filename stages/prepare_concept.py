"""Gather what a concept task needs in one folder: prepare_concept.py TASK.

out/data/<task>/: base, oracle and judge (copies, or absent.txt), strata.json, real.npy, and what unlearning trains on.
"""

import dataclasses
import shutil
from pathlib import Path

from palinode.io import atomic, write_array, write_json, write_text
from palinode.settings import read
from palinode.stage import device, main


def run(task: str) -> None:
    settings, out = read(f"prepare-concept-{task}"), Path("out/data") / task
    from palinode import concept, concept_data, conditional

    models = Path("models") / settings.base
    prompts, data, real, names = concept_data.build(conditional.load(models / "base", device()), settings)
    with atomic(out) as folder:
        folder.mkdir(parents=True)
        shutil.copytree(models / "base", folder / "base")
        shutil.copytree(models / "judge", folder / "judge")
        oracle = models / f"without-{settings.target}"
        if oracle.is_dir():
            shutil.copytree(oracle, folder / "oracle")
        else:
            write_text(folder / "oracle/absent.txt", f"no model was trained without {settings.target}\n")
        write_json(folder / "strata.json", dataclasses.asdict(prompts))
        write_array(folder / "real.npy", real)
        concept.save(data, folder / "training")
        write_json(folder / "training/names.json", {"names": names})
    print(f"{task}: {len(prompts.given)} given prompts; strata {', '.join(prompts.forget | prompts.keep)}")


if __name__ == "__main__":
    main(run)
