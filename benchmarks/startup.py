"""What each stage imports before its work starts: the imports of its script, and those that the library makes late.

`pipeline` measures the imports of real runs; this is the part of a process that no amount of work makes worth it.
"""

import ast
import statistics
import sys
import tempfile
import textwrap
from pathlib import Path

from common import REPOSITORY, measured

MODEL = ("palinode.models; palinode.models.unet_2d()", "tqdm")
METRICS = ("palinode.classifiers.digits", "torchmetrics.image.inception", "torchmetrics.image.kid",
           "torchmetrics.functional.image", "cleanfid.fid", "scipy.special")  # fmt: skip
LATE = {
    "plan": ("pydantic", "palinode.methods.siss"),
    "prepare": ("PIL.Image",),
    "judge": ("torch", "tqdm", "safetensors.torch"),
    "pretrain": (*MODEL, "palinode.methods.naive_deletion"),
    "gate": (*MODEL, *METRICS),
    "unlearn": (*MODEL, "palinode.methods.siss"),
    "sample": (*MODEL, "PIL.Image"),
    "evaluate": (*MODEL, *METRICS),
    "report": ("torch", "jinja2", "matplotlib.pyplot", "PIL.Image", "scipy.special"),
}
WITHOUT_DIFFUSERS = ("plan", "prepare", "judge", "report")


def statements(stage: str) -> str:
    """Every import of a stage's script, one a line, then the late ones."""
    tree = ast.parse((REPOSITORY / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join([*found, *(f"import {name}" for name in LATE[stage]), ""])


def seconds(stage: str, repetitions: int) -> tuple[float, float]:
    """(median seconds, peak GiB) of a stage process that imports what `stage` does; ends if it imports diffusers and
    must not."""
    program = statements(stage)
    if stage in WITHOUT_DIFFUSERS:
        program += f"import sys\nassert 'diffusers' not in sys.modules, '{stage} imports diffusers'\n"
    program = f"from palinode.stage import main\ndef run():\n{textwrap.indent(program, '    ')}main(run)\n"
    command, library = [sys.executable, "-c", program], str(REPOSITORY / "src")
    with tempfile.TemporaryDirectory() as folder:  # where `main` writes its log
        runs = [measured(command, Path(folder), PYTHONPATH=library) for _ in range(repetitions)]
    return statistics.median(run[0] for run in runs), max(run[1] for run in runs)
