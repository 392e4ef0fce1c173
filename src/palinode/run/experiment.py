"""One point of a sweep: parameters set as `dvc exp run -S` sets them, the run recorded as an experiment of DVC."""

import subprocess
import sys

from palinode.core.errors import UserError


def set_parameters(changes: list[str]) -> None:
    """Change params.yaml; changes: `rows.siss-05.lr=1e-4`. UserError for one that cannot be read."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    try:
        apply_overrides("params.yaml", changes)
    except DvcException as error:
        raise UserError(f"-S {' -S '.join(changes)}: {' '.join(str(error).split())}") from None


def save(name: str | None) -> None:
    """Record the workspace, for `dvc exp show` and `dvc exp apply`; DVC prints under which name."""
    named = [] if name is None else ["--name", name]
    finished = subprocess.run([sys.executable, "-m", "dvc", "exp", "save", "--force", *named], check=False)
    if finished.returncode:
        raise UserError("the run is complete, but DVC did not record it as an experiment")
