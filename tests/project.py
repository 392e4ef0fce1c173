"""A temporary copy of this project with a tiny task, on which tests run the real pipeline in processes of its own."""

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml

from palinode import judge, models, params
from palinode.errors import UserError
from palinode.io import write_array, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"data", "models", "results", "tests", "benchmarks", "dvc.lock", "params.yaml"}
RUNNING = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)

PARAMETERS = {
    "root_seed": 1,
    "seeds": [0],
    "data": {"tasks": ["tiny"], "rows": ["naive", "siss-05"]},
    "concept": {"tasks": [], "rows": []},
    "prompts": {"tasks": [], "rows": []},
    "classes": {"bases": [], "oracles": []},
    "text": {"bases": [], "oracles": []},
    "detection": {"bases": []},
    "robustness": {"tasks": [], "rows": [], "attacks": []},
    "runtime": {"device": "cpu", "threads": 1},
    "rows": {
        "naive": {"method": "naive_deletion", "paper": "naive", "lr": 1e-3, "steps": 4},
        "siss-05": {"method": "siss", "paper": "siss_0.5", "lr": 1e-3, "steps": 4, "options": {"lam": 0.5}},
    },
    "tasks": {
        "tiny": {
            "data": {"images": "data/train.npy", "forget": "data/forget.npy", "reference": "data/reference.npy",
                     "judge": {"train": "data/judge-train.npy", "test": "data/judge-test.npy"},
                     "size": 16, "channels": 1},
            "model": {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
                      "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2},
            "pretrain": {"steps": 20, "batch": 4, "lr": 1e-3},
            "gate": {"samples": 80, "hit_rate": [0, 1], "fid_ratio": 1e9},
            "unlearn": {"batch": 4},
            "sample": {"steps": 3, "count": 16, "chunk": 4},
            "evaluate": {"held": 2, "probes": 1, "ode_steps": 2, "eps_levels": 2, "eps_draws": 2, "denoise_from": 4,
                         "denoise_draws": 2, "bootstrap": 20, "splits": 2, "kid_subset": 8},
        }
    },
}  # fmt: skip


def repository_files() -> list[Path]:
    """Every file that is, or would be, committed. The project works in a git checkout only, as DVC does."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def digits(name: str, classes: tuple[int, ...], each: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `each` shipped digits of every class, and their labels."""
    images, labels = (np.load(ROOT / f"data/mnist/{name}{end}.npy") for end in ("", "-labels"))
    chosen = np.concatenate([np.flatnonzero(labels == c)[:each] for c in classes])
    return images[chosen], labels[chosen]


def write_data(folder: Path) -> None:
    """100 digits to keep, a T-shirt to forget, 80 reference digits, and zeros and ones for the judge."""
    folder.mkdir()
    arrays = {"train": digits("train", range(10), 10)[0], "reference": digits("reference", range(10), 8)[0],
              "forget": np.load(ROOT / "data/fashion/tshirt.npy")}  # fmt: skip
    for part, each in (("train", 200), ("test", 50)):
        arrays[f"judge-{part}"], arrays[f"judge-{part}-labels"] = digits(f"judge-{part}", (0, 1), each)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


class Project:
    """A git repository with the code of this one and parameters of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scratch = folder.parent / f"{folder.name}-scratch"
        people = ("AUTHOR", "COMMITTER")
        identity = {f"GIT_{who}_{what}": "test@localhost" for who in people for what in ("NAME", "EMAIL")}
        here = {name: str(folder.parent / name.lower()) for name in
                ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")}  # fmt: skip
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "PALINODE_", "PYTHON"))}
        self.environment = inherited | identity | here | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
            "PALINODE_SCRATCH": str(self.scratch), "GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1",
            "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

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
        """Plan and prepare the tiny task and put untrained networks in place of what its stages would train or draw:
        the judge, the base model, its samples, and for each of `rows` a cell with the base model in it."""
        self.call("plan")
        self.call("prepare", "tiny")
        config = PARAMETERS["tasks"]["tiny"]["model"] | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
        base = models.create(config, params.Task.model_fields["scheduler"].default, seed=1)
        models.save(base, self.folder / "models/tiny/base")
        judge.save(judge.Judge(16, 1, 2), self.folder / "models/tiny/judge", {})
        write_json(self.folder / "models/tiny/gate.json", {"gate": None})
        write_text(self.folder / "models/tiny/oracle/absent.txt", "the test trains none\n")
        cells = self.folder / "out/cells/tiny"
        count = self.parameters["tasks"]["tiny"]["sample"]["count"]
        for row in ("base", *rows):
            write_array(cells / row / "0/samples/samples.npy", digits("train", range(10), 10)[0][:count])
        write_text(cells / "oracle/0/samples/absent.txt", "the test trains none\n")
        for row in rows:
            models.save(base, cells / row / "0/model")
            write_json(cells / row / "0/cost.json", {"forward": 16, "backward": 16})
        return self

    # Files

    @property
    def parameters(self) -> dict:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def write_parameters(self, parameters: dict) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))

    def change(self, path: str, value: object = None) -> None:
        """Set the parameter at `a/b/c`; None deletes the key."""
        parameters = block = self.parameters
        *parents, last = path.split("/")
        for key in parents:
            block = block.setdefault(key, {})
        block[last] = value
        if value is None:
            del block[last]
        self.write_parameters(parameters)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace one piece of a file."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        (self.folder / name).write_text(text.replace(old, new))

    def digest(self, name: str) -> dict[str, str]:
        """SHA-256 of a file, or of every file in a folder."""
        place = self.folder / name
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    @property
    def lock(self) -> dict:
        return yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]

    def leftovers(self) -> list[Path]:
        """Temporary files outside git's and DVC's own folders."""
        found = self.folder.rglob("*.tmp")
        return [p for p in found if p.relative_to(self.folder).parts[0] not in (".git", ".dvc")]

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

    def dvc(self, *arguments: str) -> str:
        """Run DVC; its standard output."""
        return self.run(sys.executable, "-m", "dvc", *arguments).stdout

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the names of the stages whose commands ran (not those that came from the run cache)."""
        return set(RUNNING.findall(self.dvc("repro", *arguments)))

    def command(self, script: str, *arguments: str) -> list[str]:
        """The command of one stage, as dvc.yaml gives it."""
        return [sys.executable, f"stages/{script}.py", *arguments]

    def call(self, script: str, *arguments: str) -> None:
        """Run one stage in this process and with its code, which spares the imports; UserError when it fails."""
        threads = torch.get_num_threads()
        with contextlib.chdir(self.folder), mock.patch.dict(os.environ, {"PALINODE_SCRATCH": str(self.scratch)}):
            try:
                importlib.import_module(script).run(*arguments)
            finally:
                torch.set_num_threads(threads)

    def stage(self, script: str, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Run one stage's command without DVC."""
        options = {"env": self.environment | {"PYTHONPATH": "src"}} | options
        return self.run(*self.command(script, *arguments), check=check, **options)


def failed(project: Project, script: str, *arguments: str) -> str:
    """The one line with which a stage fails."""
    with pytest.raises(UserError) as raised:
        project.call(script, *arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)
