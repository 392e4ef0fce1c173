"""Judges on disk: a folder with judge.safetensors and config.json."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from palinode.classifiers.digits import Judge
from palinode.core.errors import UserError
from palinode.core.io import atomic, read_json, write_json


class Configured(Protocol):
    """A network that knows the arguments of its class."""

    config: dict[str, Any]

    def state_dict(self) -> dict[str, Tensor]: ...


Network = TypeVar("Network", bound=nn.Module)


def save(judge: Configured, folder: Path, metadata: Mapping[str, object]) -> None:
    """Write judge.safetensors (fp32) and config.json: `judge.config`, the arguments of its class, and metadata."""
    from safetensors.torch import save_file

    with atomic(folder) as temporary:
        temporary.mkdir()
        save_file(judge.state_dict(), temporary / "judge.safetensors")
        write_json(temporary / "config.json", judge.config | dict(metadata))


@overload
def load(folder: Path) -> Judge: ...


@overload
def load(folder: Path, kind: type[Network]) -> Network: ...


def load(folder: Path, kind: type[nn.Module] = Judge) -> nn.Module:
    """Load what `save` wrote of a judge of this kind; UserError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(Path(folder) / "config.json")
    with torch.device("meta"):  # initial weights would be drawn from the global generator
        judge = kind(**{name: config[name] for name in inspect.signature(kind).parameters})
    try:
        judge.load_state_dict(load_file(Path(folder) / "judge.safetensors"), assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"cannot read the judge in {folder}: {str(error).splitlines()[0]}") from None
    return judge.eval()
