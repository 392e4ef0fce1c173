"""What a stage hands to the code that does its work: settings, inputs, outputs, a device and a place to resume from."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from palinode.core.errors import UserError, one_line
from palinode.core.io import read_json

if TYPE_CHECKING:
    import torch

    from palinode.core.scratch import Scratch

PLANS = Path("out/plan")
RUNTIME = PLANS / "runtime.json"
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Work:
    """One stage of the graph, as dvc.yaml declares it.

    name: such as `unlearn-images@tshirt-0-siss-05-0`; inputs, outputs: its dependencies and outputs, in order.
    """

    name: str
    inputs: list[Path]
    outputs: list[Path]

    def settings(self, model: type[Model]) -> Model:
        """What the stage's plan file holds for it."""
        return read_plan(self._plan, model)

    @property
    def kind(self) -> Any:
        """The kind of base that the plan file names."""
        return read_json(self._plan)["settings"]["kind"]

    @property
    def _plan(self) -> Path:
        (path,) = [path for path in self.inputs if path.is_relative_to(PLANS)]
        return path

    def input(self, name: str) -> Path:
        """The input whose path ends in `name`."""
        return _named(self.inputs, name)

    def output(self, name: str) -> Path:
        """The output whose path ends in `name`."""
        return _named(self.outputs, name)

    @cached_property
    def device(self) -> "torch.device":
        """The device to run on, from `runtime`, with torch set up to give the same bytes every time."""
        return self.set_up_torch()

    def set_up_torch(self) -> "torch.device":
        """Let torch use the device of `runtime` and the threads of the plan file; for a stage that needs no device."""
        runtime = read_runtime()
        return set_up_torch(runtime.device, self.threads, runtime.deterministic)

    @property
    def threads(self) -> int:
        """How many threads the stage computes with. Another number rounds otherwise, so the plan file holds it."""
        return read_json(self._plan)["threads"]

    def scratch(self) -> "Scratch":
        """Where unfinished work waits, keyed by all inputs: what is kept is never of another judge, model or data."""
        from palinode.core.scratch import Scratch

        return Scratch(self.name, self.inputs)


def _named(paths: list[Path], name: str) -> Path:
    (path,) = [path for path in paths if path.parts[-len(Path(name).parts) :] == Path(name).parts]
    return path


def read_plan(path: Path, model: type[Model]) -> Model:
    """The settings in a plan file. UserError when it is missing, or of another version of the code."""
    if not path.exists():
        raise UserError(f"missing {path}: run the stages through `dvc repro`")
    try:
        return model.model_validate(read_json(path)["settings"])
    except ValidationError as error:
        raise UserError(f"{path} is not of this code ({one_line(error)}): run `dvc repro plan`") from None


class Cluster(BaseModel):
    """What a stage asks of a cluster: a partition, its memory in GiB, its longest time, and what to run before it."""

    partition: str | None
    gpus: int
    cores: int
    memory: float
    hours: float
    setup: list[str]


class _Runtime(BaseModel):
    device: str
    processes: int
    deterministic: bool
    cluster: Cluster


def read_runtime() -> _Runtime:
    """How to run: device, sampling processes, kernels, and where."""
    return read_plan(RUNTIME, _Runtime)


def set_up_torch(device: str, threads: int, deterministic: bool = True) -> "torch.device":
    """torch with so many threads and deterministic kernels; UserError when the device cannot be used.

    device, deterministic: as in `runtime`. Attention on a GPU is deterministic only where torch is not asked to warn
    alone; so an operation without a deterministic kernel is an error.
    """
    import torch

    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    name = automatic if device == "auto" else device
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"runtime.device: {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return torch.device(name)
