"""What this report was made with: versions, machine, commit. Kept out of everything that DVC tracks."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

LIBRARIES = (
    "torch",
    "diffusers",
    "numpy",
    "scipy",
    "torchmetrics",
    "clean-fid",
    "lpips",
    "safetensors",
    "matplotlib",
    "dvc",
)
CODE = ("src", "stages", "dvc.yaml", "data", "reference")  # params.yaml and dvc.lock change with every experiment


def describe(root: Path = Path(".")) -> dict:
    """Library versions (null if not installed), platform, CPU model, threads in use, and the git commit of `root`."""
    import torch

    return {
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _git(root, "rev-parse", "HEAD"),
        "modified": bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE)),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command; None outside a repository, before the first commit, or without git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
