"""Where a model's files are: folders, ids of the hub, and folders that name their source."""

import copy
import os
from pathlib import Path
from typing import Any

import torch

from palinode.core.errors import UserError
from palinode.core.io import REFUSED, read_json, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
WANTED = ["*.json", "*.safetensors", "*/merges.txt"]  # of a model on the hub; merges: a tokenizer's
UNUSED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*"]


def locate(source: str | Path) -> Path:
    """The local folder of a path, or of a hub id or `id@revision`, fetched where it is not here; a path wins.

    UserError says what is missing, from where, and what to do.
    """
    path = Path(os.path.expanduser(source))
    if (path / "source.json").exists():
        return locate(read_json(path / "source.json")["source"])
    if path.exists():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = str(source).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=WANTED, ignore_patterns=UNUSED))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        if isinstance(error, OSError) and error.errno in REFUSED:
            reason = f"{error.strerror}; HF_HOME names the folder for models of the hub"
            raise UserError(f"cannot keep model {str(source)!r}: {reason}") from None
        raise UserError(
            f"model {str(source)!r} is neither a folder here nor reachable on the hub: "
            "put the local path of a diffusers folder in the base's `source`"
        ) from None


def name_source(folder: Path, source: str) -> None:
    """Write source.json, which stands for a finished model; an id of the hub with the revision that it has now, so that
    what was computed is never of another one."""
    place = locate(source)
    is_path = Path(os.path.expanduser(source)).exists()
    fixed = source if is_path else f"{source.partition('@')[0]}@{place.name}"
    write_json(folder / "source.json", {"source": fixed})


def cast(network: torch.nn.Module, dtype: torch.dtype) -> Any:
    """A copy in another precision, by torch's own `to`: that of diffusers warns even where nothing is amiss."""
    return torch.nn.Module.to(copy.deepcopy(network), dtype)
