"""Where a model's files are: folders, ids of the hub, and folders that name their source."""

import copy
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from palinode.core import scratch
from palinode.core.errors import UserError
from palinode.core.io import REFUSED, atomic, read_json, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLED = "diffusion_pytorch_model.bin"  # the form that older repositories have, such as google/ddpm-celebahq-256
SCHEDULER = "scheduler_config.json"
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
    named: dict[str, Any] = {"revision": revision or None, "ignore_patterns": UNUSED}
    try:
        place = Path(snapshot_download(name, allow_patterns=WANTED, **named))
        if next(place.rglob("*.safetensors"), None) is None:
            place = Path(snapshot_download(name, allow_patterns=[*WANTED, f"*{PICKLED}"], **named))
        return place
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        if isinstance(error, OSError) and error.errno in REFUSED:
            reason = f"{error.strerror}; HF_HOME names the folder for models of the hub"
            raise UserError(f"cannot keep model {str(source)!r}: {reason}") from None
        raise UserError(
            f"model {str(source)!r} is neither a folder here nor reachable on the hub: "
            "put the local path of a diffusers folder in the base's `source`"
        ) from None


def with_safetensors(folder: Path) -> Path:
    """A network's folder with its weights in safetensors: `folder`, or a converted copy where it has only a pickle.

    The copy is made once and stays among unfinished work (core/scratch.py), under the digest of the pickle. Nothing but
    tensors is read from it, so no code in it can run. UserError when it holds anything else, or there are no weights.
    """
    pickled = folder / PICKLED
    if (folder / WEIGHTS).exists():
        return folder
    if not pickled.exists():
        others = sorted(p.name for ending in ("*.bin", "*.pt", "*.ckpt") for p in folder.glob(ending))
        if others:
            raise UserError(f"{folder / others[0]} is no diffusers network: convert it to {WEIGHTS}")
        raise UserError(
            f"no {WEIGHTS} in {folder}: expected a diffusers folder; give a local path or download the checkpoint"
        )
    config = folder / "config.json"
    if not config.exists():
        raise UserError(f"missing file: {config}")
    converted = scratch.root() / f"converted-{scratch.digest([pickled, config])[:16]}"
    if not converted.exists():
        from safetensors.torch import save_file

        tensors = _read_tensors(pickled)
        with atomic(converted) as temporary:
            temporary.mkdir()
            shutil.copy(config, temporary)
            save_file(tensors, temporary / WEIGHTS)
    return converted


def _read_tensors(pickled: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle by name, each in memory of its own."""
    try:
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{pickled} holds more than tensors, which could run code when read") from None
    except (RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise UserError(f"cannot read {pickled}: {reason}") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"{pickled} is no state dict of a network: expected are tensors by name")
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def load_network(network: Any, folder: Path, source: Path | None = None) -> Any:
    """A network of diffusers or transformers from its folder, as float32; network: its class.

    source: the folder that errors name, where `folder` is a copy of it. UserError when the weights cannot be read, or
    are not those of the network that config.json describes.
    """
    source = source or folder
    loading: dict[str, Any] = {"use_safetensors": True, "torch_dtype": torch.float32, "local_files_only": True}
    try:
        loaded, told = network.from_pretrained(folder, output_loading_info=True, **loading)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot read the weights in {source}: {str(error).splitlines()[0]}") from None
    if told["missing_keys"]:
        raise UserError(f"the weights in {source} lack {min(told['missing_keys'])}, which its config.json asks for")
    if told["unexpected_keys"]:
        raise UserError(f"the weights in {source} have {min(told['unexpected_keys'])}, which its config.json has not")
    return loaded


def read_scheduler(source: Path, folder: Path) -> dict:
    """The scheduler's configuration of a pixel model: beside source.json where a base names one, else its folder's own.

    UserError when there is none, as in a checkpoint that holds a network alone.
    """
    for path in (source / SCHEDULER, folder / "scheduler" / SCHEDULER, folder / SCHEDULER):
        if path.exists():
            return read_json(path)
    raise UserError(f"no {SCHEDULER} in {folder}: name the base's `scheduler` in params.yaml")


def name_source(folder: Path, source: str, scheduler: dict | None = None) -> None:
    """Write source.json, which stands for a finished model; an id of the hub with the revision that it has now, so that
    what was computed is never of another one. scheduler: where it is not to be the model's own."""
    place = locate(source)
    is_path = Path(os.path.expanduser(source)).exists()
    fixed = source if is_path else f"{source.partition('@')[0]}@{place.name}"
    with atomic(folder) as temporary:
        write_json(temporary / "source.json", {"source": fixed})
        if scheduler is not None:
            write_json(temporary / SCHEDULER, scheduler)


def cast(network: torch.nn.Module, dtype: torch.dtype) -> Any:
    """A copy in another precision, by torch's own `to`: that of diffusers warns even where nothing is amiss."""
    return torch.nn.Module.to(copy.deepcopy(network), dtype)
