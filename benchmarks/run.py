"""Measure the project's cost promises: run.py [NAME …] [--quick]. What each measures, and the targets: README.md."""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import startup as imports
from common import HERE, NOTHING, REPOSITORY, Project, measured, only, parameters, worker

RESULTS = HERE / "results.json"
TASK = "tshirt"  # of images, with a base of the same name
LARGE = "celebahq"
ROW = "siss-05"
ABSENT = "not trained here\n"
SMALLEST = (
    "held",
    "probes",
    "ode_steps",
    "eps_levels",
    "eps_draws",
    "denoise_from",
    "denoise_draws",
    "splits",
    "batch",
)
QUICK = {
    "held": 2,
    "probes": 1,
    "ode_steps": 2,
    "eps_levels": 2,
    "eps_draws": 2,
    "kid_subset": 8,
    "denoise_from": 3,
    "denoise_draws": 2,
    "bootstrap": 10,
    "splits": 2,
}


def most(value: float, limit: float) -> dict:
    return {"target": f"<= {limit:g}", "met": value <= limit}


def least(value: float, limit: float) -> dict:
    return {"target": f">= {limit:g}", "met": value >= limit}


def siss(quick: bool) -> list[dict]:
    """SISS step / plain step of the same batch."""
    records = []
    for case, limit in {"16px": 1.30, "28px": 1.10, "28px-paper": 1.10, "256px": 1.05}.items():
        rest = ["quick"] if quick else []
        record = {"case": case} | worker("siss.py", "time", case, *rest)
        record |= most(record["siss/naive"], limit)
        record["refresh target"] = "<= 1.1"
        record["met"] = record["met"] and record["refresh/naive"] <= 1.1
        for form in ("naive", "siss", "two-backward"):
            record[f"GiB {form}"] = worker("siss.py", "memory", case, form, *rest)["peak"]
        records.append(record)
    return records


def sampling(quick: bool) -> list[dict]:
    """Share of the sampling loop inside the network."""
    record = {"case": "ddpm"} | worker("sampling_loop.py", *((8, 5, 2) if quick else (64, 50, 7)))
    return [record | least(record["inside"], 0.95)]


def startup(quick: bool) -> list[dict]:
    """Fixed cost of a process of each stage."""
    records = []
    for stage in imports.LATE:
        seconds, gib = imports.seconds(stage, 1 if quick else 5)
        diffusers = "never imported" if stage in imports.WITHOUT_DIFFUSERS else ""
        records.append({"stage": stage, "seconds": seconds, "GiB": gib, "diffusers": diffusers} | most(seconds, 5))
    return records


def celebahq_cell(quick: bool) -> list[dict]:
    """One full cell on the CelebA-HQ-256 architecture."""
    size = 64 if quick else 256
    params = only(parameters(), LARGE, ROW, steps=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = params["image_tasks"][LARGE]
        task |= {
            "forget": ["00000.jpg"],
            "unlearn": task.get("unlearn", {}) | {"batch": 1, "accumulate": 2},
            "sample": task.get("sample", {}) | {"count": 2, "steps": 2, "chunk": 2},
            "evaluate": dict.fromkeys(SMALLEST, 1) | {"bootstrap": 10, "kid_subset": 2},
        }
        base = {
            "kind": "unconditional",
            "source": str(folder / "weights"),
            "data": {"images": str(folder / "faces"), "size": size},
        }
        params["base_models"] = params["base_models"] | {LARGE: base}
        measured([sys.executable, str(HERE / "networks.py"), LARGE, str(folder / "weights"), str(size)])
        project = Project(folder, params)
        records = [project.stage("plan"), project.stage("prepare", "base", LARGE)]
        records += [project.stage(stage, LARGE) for stage in ("judge", "pretrain")]
        records += cell(project, LARGE)
        cost = json.loads((folder / "out/cells" / LARGE / "0" / ROW / "0/training/cost.json").read_text())
        assert cost["steps"] == 1, cost
        assert cost["forward"] == 2, cost
    return [record | most(record["GiB"], 20) for record in records]


def text_sampler(quick: bool) -> list[dict]:
    """Our text-to-image sampling / that of StableDiffusionPipeline, same model, prompts, steps and noise."""
    record = {"case": "emoji"} | worker("text.py", "sampler", 1 if quick else 7)
    return [record | most(record["ours/pipeline"], 1.0)]


def stable_diffusion(quick: bool) -> list[dict]:
    """The Stable Diffusion 1.4 architecture with random weights: sample one image, take one plain step."""
    with tempfile.TemporaryDirectory() as name:
        worker("text.py", "build", f"{name}/model", 64 if quick else 512, "")
        record = {"case": "SD 1.4"} | worker("text.py", "large", f"{name}/model")
    return [record | most(record["GiB"], 20)]


def memorized_prompts(quick: bool) -> list[dict]:
    """Drawing with one loaded model / loading it for every draw; detection and a SISS step on SD 1.4's architecture."""
    shared = {"case": "draws, emoji"} | worker("text.py", "loading", 1 if quick else 5)
    with tempfile.TemporaryDirectory() as name:
        worker("text.py", "build", f"{name}/model", 64 if quick else 512, "")
        large = {"case": "SD 1.4"} | worker("text.py", "memorized", f"{name}/model")
    return [shared | most(shared["shared/loaded"], 1.0), large | most(large["GiB"], 20)]


PROMPTS = """
templates: {training: ["a photo of {}"], new: ["a sketch of {}"]}
things:
  parachute: {group: airborne, synonyms: [canopy]}
  airplane: {group: airborne, synonyms: [jet]}
"""
CONCEPT = "sd-object"
CONCEPT_ROW = "concept-ablation"


def concept_parameters(weights: Path) -> dict:
    """params.yaml with one concept task at its smallest, on the model in `weights`."""
    params = parameters()
    settings = params["concept_tasks"][CONCEPT]
    settings |= {
        "prompts": "data/prompts/few.yaml",
        "data": {"retain": 1, "pairs": 1, "fisher": 1, "fisher_steps": 1, "saliency": 1},
        "unlearn": settings["unlearn"] | {"batch": 1},
        "sample": settings["sample"] | {"steps": 2, "each": 1, "chunk": 1},
        "bootstrap": 10,
        "overrides": {CONCEPT_ROW: settings["overrides"][CONCEPT_ROW] | {"steps": 1}},
    }
    return params | {
        "seeds": [0],
        "bases": ["sd14"],
        "images": NOTHING,
        "concept": {"tasks": [CONCEPT], "subjects": [0], "rows": [CONCEPT_ROW]},
        "prompts": NOTHING,
        "detection": params["detection"] | {"bases": []},
        "attacks": NOTHING | {"attacks": []},
        "base_models": {"sd14": {"kind": "text", "source": str(weights)}},
        "image_tasks": {},
        "concept_tasks": {CONCEPT: settings},
        "prompt_tasks": {},
    }


def sd_object(quick: bool) -> list[dict]:
    """One full concept cell on the Stable Diffusion 1.4 architecture with random weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worker("text.py", "build", folder / "weights", 64 if quick else 512, PROMPTS)
        project = Project(folder, concept_parameters(folder / "weights"))
        (folder / "data").unlink()
        (folder / "data/prompts").mkdir(parents=True)
        (folder / "data/prompts/few.yaml").write_text(PROMPTS, encoding="utf-8")
        records = [project.stage("plan"), project.stage("prepare", "base", "sd14")]
        records += [project.stage(stage, "sd14") for stage in ("judge", "pretrain", "gate")]
        records.append(project.stage("bind"))
        records += [project.stage(stage, "concept", CONCEPT, "0") for stage in ("prepare", "importance")]
        references = ("base", "oracle", "other-seed")
        records += [project.stage("sample", "concept", CONCEPT, "0", "reference", row) for row in references]
        steps = ("unlearn", "sample", "evaluate")
        records += [project.stage(stage, "concept", CONCEPT, "0", CONCEPT_ROW, "0") for stage in steps]
        cost = folder / "out/cells" / CONCEPT / "0" / CONCEPT_ROW / "0/training/cost.json"
        assert json.loads(cost.read_text())["steps"] == 1
    return [record | most(record["GiB"], 20) for record in records]


def concept_steps(quick: bool) -> list[dict]:
    """One step of each concept method / the network evaluations that it needs."""
    params = parameters()
    records = []
    seen = set()
    for row in params["concept"]["rows"]:
        settings = params["rows"][row]
        options = json.dumps(settings.get("options", {}))
        if settings["steps"] > 1 and (settings["method"], options) not in seen:  # a closed form takes no step
            seen.add((settings["method"], options))
            record = {"row": row} | worker("concept_steps.py", settings["method"], options, 1 if quick else 60)
            records.append(record | most(record["step/passes"], 1.10))
    return records


def pipeline(quick: bool) -> list[dict]:
    """Share of a default cell's time inside networks."""
    params = only(parameters(), TASK, ROW, steps=5 if quick else None)
    if quick:
        task = params["image_tasks"][TASK]
        task |= {"sample": task.get("sample", {}) | {"count": 16, "steps": 5, "chunk": 16}, "evaluate": QUICK}
    with tempfile.TemporaryDirectory() as name:
        project = Project(Path(name), params)
        records = [project.stage("plan"), project.stage("prepare", "base", TASK)]
        for base in params["bases"]:
            records += place_base(project, base)
        records += cell(project, TASK)
    for record in records:
        assert not (record["diffusers"] and record["script"] in imports.WITHOUT_DIFFUSERS), record
    own = [record for record in records if f"{ROW} 0" in record["stage"]]
    records.append({"stage": "one cell"} | {k: sum(r[k] for r in own) for k in ("seconds", "networks", "imports")})
    for record in records:
        record["inside"] = record["networks"] / record["seconds"]
    records[-1] |= least(records[-1]["inside"], 0.75)
    return records


def place_base(project: Project, base: str) -> list[dict]:
    """The trained model and judge of a base or an oracle, where there are any.

    Else a base has a random model, which costs the same, and its judge is trained; an oracle is absent.
    """
    oracle = base != TASK
    records = []
    for part in ("model", "judge"):
        trained = REPOSITORY / "models" / base / part
        place = project.folder / "models" / base / part
        if trained.is_dir():
            shutil.copytree(trained, place)
        elif oracle:
            place.mkdir(parents=True)
            (place / "absent.txt").write_text(ABSENT)
        elif part == "model":
            measured([sys.executable, str(HERE / "networks.py"), base, str(place)])
        else:
            records.append(project.stage("judge", base))
    return records


def cell(project: Project, task: str) -> list[dict]:
    """What a cell of images needs of its task, the references that its metrics are paired with, and the cell."""
    records = [project.stage("bind"), project.stage("prepare", "images", task)]
    records += [project.stage("sample", "images", task, "reference", row) for row in ("base", "oracle")]
    return records + [
        project.stage(stage, "images", task, "0", ROW, "0") for stage in ("unlearn", "sample", "evaluate")
    ]


BENCHMARKS = {
    "siss": siss,
    "sampling": sampling,
    "startup": startup,
    "celebahq-cell": celebahq_cell,
    "text-sampler": text_sampler,
    "stable-diffusion": stable_diffusion,
    "memorized-prompts": memorized_prompts,
    "sd-object": sd_object,
    "concept-steps": concept_steps,
    "pipeline": pipeline,
}
HIDDEN = ("wall", "script")  # in the file, not in the table


def table(records: list[dict]) -> str:
    """The records as aligned text."""
    heads = list(dict.fromkeys(key for record in records for key in record if key not in HIDDEN))
    lines = [heads] + [[show(record.get(head, "")) for head in heads] for record in records]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def show(value: object) -> str:
    if isinstance(value, list):
        return " … ".join(map(show, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine() -> dict:
    """What the numbers were measured on. The load, a mean over a minute, counts the benchmark before."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        **versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; writes no results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}: choose of {', '.join(BENCHMARKS)}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    missed = 0
    for name in arguments.names or BENCHMARKS:
        here = machine()
        records = BENCHMARKS[name](arguments.quick)
        print(f"\n{name}: {BENCHMARKS[name].__doc__} (load at the start {here['load']})\n{table(records)}", flush=True)
        missed += sum(not record.get("met", True) for record in records)
        results[name] = {"machine": here, "records": records}
        if not arguments.quick:
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\n{missed} target(s) missed" if missed else "\nevery target met")


if __name__ == "__main__":
    main()
