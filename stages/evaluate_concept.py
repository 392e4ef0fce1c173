"""Compute all metrics of one concept cell: evaluate_concept.py TASK ROW SEED (see palinode.metrics.concept)."""

from pathlib import Path

from palinode.io import atomic, read_array, read_json, write_arrays, write_json, write_text
from palinode.settings import read
from palinode.stage import cell, device, main


def run(task: str, row: str, seed: str) -> None:
    settings, here, data = read(f"evaluate-concept-{task}"), cell(task, row, seed), Path("out/data") / task
    from palinode.data.strata import Strata
    from palinode.metrics import concept, integrity, record
    from palinode.models import absent

    device()
    if reason := absent(here / "samples"):
        write_text(here / "evaluation/absent.txt", f"{reason}\n")
        return
    prompts = Strata.from_json(read_json(data / "strata.json"))
    asked = prompts.forget | prompts.keep

    def split(folder: Path) -> dict:
        images, found, first = read_array(folder / "samples.npy"), {}, 0
        for name, some in asked.items():
            found[name], first = images[first : first + len(some)], first + len(some)
        return found

    base, other, oracle = (cell(task, role, 0) / "samples" for role in ("base", "other", "oracle"))
    eyes, real = concept.eyes(data / "judge", settings.kind, settings.target), data / "real.npy"
    known = read_array(real) if real.exists() else "there are no real pictures of what the kept prompts ask for"
    kinds = (list(prompts.forget), list(prompts.keep))
    lpips = {"lpips": integrity.lpips_alex(settings.lpips_trunk)} if settings.lpips_trunk else {}
    metrics = concept.evaluate(concept.Context(
        split(here / "samples"), split(base), split(other), absent(oracle) or split(oracle), asked,
        *kinds, known, eyes, settings.bootstrap, **lpips,
    ))  # fmt: skip
    if (here / "cost.json").exists():
        cost = read_json(here / "cost.json")
        for way in ("forward", "backward"):
            metrics[f"{way}_passes"] = record.exact(cost[way], unit="samples", direction="down")
    entries, replicates = record.pack(metrics)
    with atomic(here / "evaluation") as out:
        write_json(out / "metrics.json", entries)
        write_arrays(out / "replicates.npz", replicates)


if __name__ == "__main__":
    main(run)
