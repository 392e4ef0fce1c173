"""A temporary copy of this project with a tiny task, whose real stages tests run, in this process or their own."""

import atexit
import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml

from palinode.classifiers import digits as digit_judge
from palinode.classifiers import storage
from palinode.core.errors import UserError
from palinode.core.io import write_array, write_json, write_text
from palinode.models import unconditional
from palinode.models.denoiser import Diffuser
from palinode.params.bases import DDPM_SCHEDULER
from palinode.pipeline import stage, warm
from palinode.pipeline.warm import WarmProcess

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"data", "models", "results", "tests", "benchmarks", "examples", "docs", "dvc.lock", "params.yaml"}
RUNNING = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
SETTINGS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # of every process
NO_ORACLE = "the test trains none"

UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D"] * 2,
    "up_block_types": ["UpBlock2D"] * 2,
}
EVALUATE = {
    "held": 2,
    "probes": 1,
    "ode_steps": 2,
    "eps_levels": 2,
    "eps_draws": 2,
    "denoise_from": 4,
    "denoise_draws": 2,
    "bootstrap": 20,
    "splits": 2,
    "kid_subset": 8,
}
PARAMETERS = {
    "root_seed": 1,
    "seeds": [0],
    "bases": ["tiny", "tiny-without-repeated"],
    "images": {"tasks": ["tiny"], "subjects": [0], "rows": ["naive", "siss-05"]},
    "concept": {"tasks": [], "subjects": [0], "rows": []},
    "prompts": {"tasks": [], "subjects": [0, 1, "sequential"], "rows": []},
    "detection": {"bases": []},
    "attacks": {"tasks": [], "rows": [], "attacks": []},
    "counts": {"tasks": [], "rows": [], "seeds": [0]},
    "threads": {"bases": 1, "cells": 1},
    "runtime": {"device": "cpu"},
    "rows": {
        "naive": {"method": "naive_deletion", "paper": "naive", "lr": 1e-3, "steps": 4},
        "siss-05": {
            "method": "siss",
            "paper": "siss_0.5",
            "lr": 1e-3,
            "steps": 4,
            "options": {"lam": 0.5, "norm": 1.0},
        },
    },
    "base_models": {
        "tiny": {
            "kind": "unconditional",
            "data": {
                "images": "data/train.npy",
                "repeated": {"images": "data/forget.npy"},
                "reference": "data/reference.npy",
                "judge": {"train": "data/judge-train.npy", "test": "data/judge-test.npy"},
                "size": 16,
                "channels": 1,
            },
            "model": UNET,
            "pretrain": {"steps": 20, "batch": 4, "lr": 1e-3},
            "gate": {"samples": 80, "hit_rate": [0, 1], "fid_ratio": 1e9, "chunk": 4},
        },
        "tiny-without-repeated": {"of": "tiny", "without": "repeated"},
    },
    "image_tasks": {
        "tiny": {
            "base": "tiny",
            "forget": "data/forget.npy",
            "unlearn": {"batch": 4},
            "sample": {"steps": 3, "count": 16, "chunk": 4},
            "evaluate": EVALUATE,
        }
    },
}


def repository_files() -> list[Path]:
    """Every file that is, or would be, committed. The project works in a git checkout only, as DVC does."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def digits(name: str, classes: Sequence[int], each: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `each` shipped digits of every class, and their labels."""
    images, labels = (np.load(ROOT / f"data/mnist/{name}{end}.npy") for end in ("", "-labels"))
    chosen = np.concatenate([np.flatnonzero(labels == c)[:each] for c in classes])
    return images[chosen], labels[chosen]


def write_data(folder: Path) -> None:
    """100 digits to keep, a T-shirt to forget, 80 reference digits, and zeros and ones for the judge."""
    folder.mkdir()
    arrays = {
        "train": digits("train", range(10), 10)[0],
        "reference": digits("reference", range(10), 8)[0],
        "forget": np.load(ROOT / "data/fashion/tshirt.npy"),
    }
    for part, each in (("train", 200), ("test", 50)):
        images, labels = digits(f"judge-{part}", (0, 1), each)
        arrays[f"judge-{part}"] = images
        arrays[f"judge-{part}-labels"] = labels
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def set_key(parameters: dict, path: str, value: object = None) -> None:
    """Set the parameter at `a/b/c`; None deletes the key."""
    block = parameters
    *parents, last = path.split("/")
    for key in parents:
        block = block.setdefault(key, {})
    block[last] = value
    if value is None:
        del block[last]


def untrained_base(seed: int = 1) -> Diffuser:
    """A network of the size of the tiny base, without training."""
    config = UNET | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
    return unconditional.create(config, DDPM_SCHEDULER, seed=seed)


@cache
def warm_environment() -> dict[str, str]:
    """What lets stages be copies of a warm process, one for all tests of this process."""
    if not warm.is_possible():
        return {}
    with mock.patch.dict(os.environ, SETTINGS):
        process = WarmProcess(Path(os.devnull))
    atexit.register(process.stop)
    return {warm.ADDRESS: process.address}


class Project:
    """A git repository with the code of this one and parameters of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scratch = folder.parent / f"{folder.name}-scratch"
        people = ("AUTHOR", "COMMITTER")
        identity = {f"GIT_{who}_{what}": "test@localhost" for who in people for what in ("NAME", "EMAIL")}
        places = ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")
        here = {name: str(folder.parent / name.lower()) for name in places}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "PALINODE_", "PYTHON"))}
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PALINODE_SCRATCH": str(self.scratch),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
        }
        self.environment = inherited | identity | here | own | SETTINGS

    @classmethod
    def create(cls, folder: Path, parameters: dict = PARAMETERS) -> "Project":
        """The working tree's files without its data, models and results, with tiny data, committed."""
        for path in repository_files():
            name = path.relative_to(ROOT)
            if name.parts[0] not in LEFT_OUT or name.is_relative_to("results/strengths"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / name)
        write_data(folder / "data")
        project = cls(folder)
        project.write_parameters(parameters)
        project.git("init", "-q")
        project.commit()
        return project

    def copy(self, folder: Path) -> "Project":
        """Everything, DVC's cache included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def clone(self, folder: Path) -> "Project":
        """What git carries."""
        self.git("clone", "-q", ".", str(folder))
        return Project(folder)

    def begin(self, *rows: str) -> "Project":
        """Plan and prepare the tiny task, with untrained networks in place of what its stages would train or draw.

        These are the judge, the base model, its samples, and for each of `rows` a cell with the base model in it.
        """
        self.call("plan")
        self.call("prepare", "base", "tiny")
        self.call("prepare", "images", "tiny")
        base = untrained_base()
        models = self.folder / "models"
        unconditional.save(base, models / "tiny/model")
        storage.save(digit_judge.Judge(16, 1, 2), models / "tiny/judge", {})
        write_text(models / "tiny/second-judge/absent.txt", "it forgets no concept\n")
        write_text(models / "tiny-without-repeated/model/absent.txt", f"{NO_ORACLE}\n")
        self.call("bind")
        count = self.parameters["image_tasks"]["tiny"]["sample"]["count"]
        samples = digits("train", range(10), 10)[0][:count]
        references = self.folder / "out/references/tiny"
        for row in ("base", "real"):
            write_array(references / row / "samples.npy", samples)
        write_text(references / "oracle/absent.txt", f"{NO_ORACLE}\n")
        for row in rows:
            cell = self.folder / "out/cells/tiny/0" / row / "0"
            write_array(cell / "samples/samples.npy", samples)
            unconditional.save(base, cell / "model")
            write_json(cell / "training/cost.json", {"forward": 16, "backward": 16, "steps": 4})
        return self

    # Files

    @property
    def parameters(self) -> dict:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def write_parameters(self, parameters: dict) -> None:
        # Through JSON, so that no block is written as an alias of another.
        plain = json.loads(json.dumps(parameters))
        (self.folder / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    def change(self, path: str, value: object = None) -> None:
        """Set the parameter at `a/b/c`; None deletes the key."""
        parameters = self.parameters
        set_key(parameters, path, value)
        self.write_parameters(parameters)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace one piece of a file."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        (self.folder / name).write_text(text.replace(old, new))

    def digest(self, name: str) -> dict[str, str]:
        """SHA-256 of a file, or of every file in a folder."""
        place = self.folder / name
        listed = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in listed}

    @property
    def lock(self) -> dict:
        return yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]

    def leftovers(self) -> list[Path]:
        """Temporary files outside git's and DVC's own folders."""
        temporary = self.folder.rglob("*.tmp")
        return [p for p in temporary if p.relative_to(self.folder).parts[0] not in (".git", ".dvc")]

    # Processes

    def run(self, *command: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Run a command at the project's root; a failure shows its output unless `check` is false."""
        options = {"cwd": self.folder, "env": self.environment, "capture_output": True, "text": True} | options
        done = subprocess.run(command, **options)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "test")

    def dvc(self, *arguments: str, warmly: bool = True) -> str:
        """Run DVC; its standard output. warmly: stages are copies of a warm process, which spares the imports."""
        environment = self.environment | (warm_environment() if warmly else {})
        return self.run(sys.executable, "-m", "dvc", *arguments, env=environment).stdout

    def repro(self, *arguments: str, warmly: bool = True) -> set[str]:
        """`dvc repro`; the names of the stages whose commands ran (not those that came from the run cache)."""
        return set(RUNNING.findall(self.dvc("repro", *arguments, warmly=warmly)))

    def launcher(self, *arguments: str) -> list[str]:
        """The command behind `make repro`."""
        return [sys.executable, "-m", "palinode.run", *arguments]

    def launch(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run the stages side by side."""
        environment = self.environment | {"PYTHONPATH": "src"} | environment
        return self.run(*self.launcher(*arguments), check=check, env=environment)

    def command(self, script: str, *arguments: str) -> list[str]:
        """The command of one stage, as dvc.yaml gives it."""
        return [sys.executable, f"stages/{script}.py", *arguments]

    def call(self, script: str, *arguments: str) -> None:
        """Run one stage in this process and with its code, which spares the imports; UserError when it fails."""
        with contextlib.chdir(self.folder), mock.patch.dict(os.environ, {"PALINODE_SCRATCH": str(self.scratch)}):
            call_stage(script, *arguments)

    def stage(self, script: str, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Run one stage's command without DVC."""
        options = {"env": self.environment | {"PYTHONPATH": "src"}} | options
        return self.run(*self.command(script, *arguments), check=check, **options)


def call_stage(script: str, *arguments: str) -> None:
    """Run one stage of the working folder in this process, through the graph; UserError when it fails."""
    threads = torch.get_num_threads()
    try:
        stage.execute(importlib.import_module(script).run, script, list(arguments))
    finally:
        torch.set_num_threads(threads)


def failed(project: Project, script: str, *arguments: str) -> str:
    """The one line with which a stage fails."""
    with pytest.raises(UserError) as raised:
        project.call(script, *arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)
