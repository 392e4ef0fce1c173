"""What the benchmarks share: child processes with their time and memory, and temporary projects.

Imports no torch: Linux hands a parent's peak memory on to the children it starts, so the parent has to stay small.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
NOTHING = {"tasks": [], "rows": []}
GIB = 2**30 if sys.platform == "darwin" else 2**20  # units of ru_maxrss in a GiB


def measured(command: list[str], cwd: Path = REPOSITORY, **environment: str) -> tuple[float, float, str]:
    """Run a command: (seconds, peak GiB, what it printed). Ends the benchmark with its last words when it fails."""
    environment = os.environ | {"PYTHONPATH": "src"} | environment
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"error: {' '.join(command)[:200]} ended with {process.returncode}\n{err.read()[-2000:]}")
        return seconds, usage.ru_maxrss / GIB, out.read()


def worker(script: str, *arguments: str | int) -> dict:
    """What a script of this folder prints: JSON, on its last line."""
    _, _, printed = measured([sys.executable, str(HERE / script), *map(str, arguments)])
    return json.loads(printed.splitlines()[-1])


def peak() -> float:
    """Peak memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB


def ratio(numerator: list[float], denominator: list[float]) -> dict:
    """Median and range of the ratios of paired times."""
    ratios = [n / d for n, d in zip(numerator, denominator, strict=True)]
    return {"median": round(statistics.median(ratios), 4), "range": [round(min(ratios), 4), round(max(ratios), 4)]}


class Project:
    """A temporary project that runs the repository's own stages on parameters of its own."""

    def __init__(self, folder: Path, params: dict):
        import yaml

        self.folder = folder
        for name in ("src", "stages", "data", "reference", "dvc.yaml"):
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    def stage(self, script: str, *arguments: str) -> dict:
        """Run one stage as DVC would: its seconds, peak GiB, and where the time went (inside.py)."""
        log = self.folder / "inside.jsonl"
        log.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "inside.py"), f"stages/{script}.py", *arguments]
        environment = {"PALINODE_SCRATCH": str(self.folder / "scratch"), "PALINODE_INSIDE": str(log)}
        seconds, gib, _ = measured(command, self.folder, **environment)
        return {"stage": " ".join([script, *arguments]), "seconds": seconds, "GiB": gib, **json.loads(log.read_text())}


def parameters() -> dict:
    """params.yaml as it stands."""
    import yaml

    return yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))


def only(params: dict, task: str, row: str, steps: int | None = None) -> dict:
    """`params` with one task of images, its bases, one row and one seed; `steps`: of unlearning."""
    settings = params["image_tasks"][task]
    overrides = settings.get("overrides", {})
    if steps is not None:
        overrides = overrides | {row: overrides.get(row, {}) | {"steps": steps}}
    base = settings["base"]
    oracles = [name for name, block in params["base_models"].items() if block.get("of") == base]
    return params | {
        "seeds": [0],
        "bases": [base, *oracles],
        "images": {"tasks": [task], "subjects": [0], "rows": [row]},
        "concept": NOTHING,
        "prompts": NOTHING,
        "detection": params["detection"] | {"bases": []},
        "attacks": NOTHING | {"attacks": []},
        "image_tasks": {task: settings | {"overrides": overrides}},
    }
