"""What a stage reads instead of params.yaml: its own file in out/plan/, written by the first stage (palinode.plan)."""

import json
from pathlib import Path
from types import SimpleNamespace

from palinode.errors import UserError

FOLDER = Path("out/plan")


def path(name: str) -> Path:
    """The plan file of one stage, e.g. path("unlearn-tshirt-siss-05"); an input of that stage."""
    return FOLDER / f"{name}.json"


def read(name: str) -> SimpleNamespace:
    """The settings of one stage, nested blocks as attributes; a block that names things by the user's keys is a
    dict."""
    try:
        plan = json.loads(path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"missing {path(name)}: run the stages through `dvc repro`") from None
    return SimpleNamespace(**{key: _attributes(key, value) for key, value in plan["settings"].items()})


def runtime() -> SimpleNamespace:
    """How to run: device, threads, processes, paths of optional weights."""
    return read("runtime")


def _attributes(key: str, value: object) -> object:
    if isinstance(value, dict) and key not in ("options", "model", "scheduler", "tasks", "families"):
        return SimpleNamespace(**{k: _attributes(k, v) for k, v in value.items()})
    return value
