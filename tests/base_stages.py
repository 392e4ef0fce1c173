"""The stages of one base model, run in a folder of their own on settings that a test writes."""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from unittest import mock

import torch

from palinode.core.io import write_json
from palinode.core.work import RUNTIME
from palinode.params.stage_settings import OfBase
from palinode.pipeline import graph, stage

ROOT = Path(__file__).resolve().parents[1]


class BaseStages:
    """A folder with this repository's graph, code and scripts."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder = folder
        self.scratch = folder.parent / f"{folder.name}-scratch"
        own = {"PALINODE_SCRATCH": str(self.scratch), "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
        self.environment = os.environ | own
        for name in ("src", "stages", "dvc.yaml"):
            (folder / name).symlink_to(ROOT / name)
        write_json(folder / RUNTIME, {"settings": {"device": "cpu", "threads": 1, "processes": 1}})

    def plan(self, script: str, settings: OfBase) -> None:
        """Write the plan file of a stage."""
        with contextlib.chdir(self.folder):
            plan = graph.find(script, _arguments(script, settings.name)).inputs[0]
            write_json(plan, {"settings": settings.model_dump(mode="json")})

    def run(self, script: str, settings: OfBase) -> None:
        """Plan a stage, and run it in this process, which spares the imports; UserError when it fails."""
        self.plan(script, settings)
        threads = torch.get_num_threads()
        with contextlib.chdir(self.folder), mock.patch.dict(os.environ, {"PALINODE_SCRATCH": str(self.scratch)}):
            try:
                stage.execute(importlib.import_module(script).run, script, _arguments(script, settings.name))
            finally:
                torch.set_num_threads(threads)

    def command(self, script: str, name: str) -> list[str]:
        """The command line of a stage."""
        return [sys.executable, f"stages/{script}.py", *_arguments(script, name)]


def _arguments(script: str, name: str) -> list[str]:
    return ["base", name] if script == "prepare" else [name]
