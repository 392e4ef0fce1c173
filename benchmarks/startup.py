"""What each stage imports before its work starts: the imports of its script, and those that the library makes late.

The stages are those of images. `pipeline` measures the imports of real runs; this is the part of a process that no
amount of work makes worth it.
"""

import ast
import statistics
import sys
import tempfile
import textwrap
from pathlib import Path

from common import REPOSITORY, measured

MODEL = ("diffusers.models.unets.unet_2d", "tqdm")
METRICS = (
    "palinode.classifiers.digits",
    "torchmetrics.image.inception",
    "torchmetrics.image.kid",
    "torchmetrics.functional.image",
    "cleanfid.fid",
    "scipy.special",
)
LATE = {
    "plan": ("pydantic", "palinode.methods.siss"),
    "prepare": ("palinode.bases.unconditional.prepare", "palinode.tasks.images.prepare", "PIL.Image"),
    "judge": ("palinode.bases.unconditional.judge", "tqdm", "safetensors.torch"),
    "pretrain": ("palinode.bases.unconditional.pretrain", *MODEL, "palinode.methods.naive_deletion"),
    "gate": ("palinode.bases.unconditional.gate", *MODEL, *METRICS),
    "bind": (),
    "unlearn": ("palinode.tasks.images.unlearn", *MODEL, "palinode.methods.siss"),
    "sample": ("palinode.tasks.images.sample", *MODEL),
    "evaluate": ("palinode.tasks.images.evaluate", *MODEL, *METRICS, "PIL.Image"),
    "report": ("jinja2", "matplotlib.pyplot", "PIL.Image", "scipy.special"),
}
WITHOUT_DIFFUSERS = ("plan", "prepare", "judge", "bind", "report")
GRAPH = """
stages:
  startup:
    cmd: PYTHONPATH=src python stages/startup.py
    deps: []
    outs: []
"""


def statements(stage: str) -> str:
    """Every import of a stage's script, one a line, then the late ones."""
    tree = ast.parse((REPOSITORY / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    listed = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join([*listed, *(f"import {name}" for name in LATE[stage]), ""])


def write_program(stage: str) -> str:
    """A stage that imports what `stage` does; it fails if it imports diffusers and must not."""
    program = statements(stage)
    if stage in WITHOUT_DIFFUSERS:
        program += f"import sys\nassert 'diffusers' not in sys.modules, '{stage} imports diffusers'\n"
    body = textwrap.indent(program, "    ")
    return f"from palinode.pipeline.stage import main\ndef run(work):\n{body}main(run)\n"


def seconds(stage: str, repetitions: int) -> tuple[float, float]:
    """(median seconds, peak GiB) of a stage's process that imports what `stage` does."""
    command = [sys.executable, "stages/startup.py"]
    library = str(REPOSITORY / "src")
    with tempfile.TemporaryDirectory() as name:  # where `main` reads the graph and writes its log
        folder = Path(name)
        (folder / "stages").mkdir()
        (folder / "stages/startup.py").write_text(write_program(stage), encoding="utf-8")
        (folder / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
        runs = [measured(command, folder, PYTHONPATH=library) for _ in range(repetitions)]
    return statistics.median(run[0] for run in runs), max(run[1] for run in runs)
