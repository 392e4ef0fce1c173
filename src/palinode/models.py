"""Loading and saving diffusers folders, and one face for every diffusion model."""

import copy
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from palinode.diffusion import Schedule
from palinode.errors import UserError
from palinode.io import REFUSED, atomic, read_json, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
WANTED = ["*.json", "*.safetensors", "*/merges.txt"]  # of a model on the hub; merges: a tokenizer's
UNUSED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*"]


class Diffuser:
    """A noise predictor with its schedule.

    shape: (C, H, W) of one image. passes: samples sent forward and backward through the network since the last reset,
    so that the cost of a method is counted where it arises.
    """

    def __init__(self, net: torch.nn.Module, schedule: Schedule, config: dict, precision: str = "fp32"):
        self.net, self.schedule, self.config = net, schedule, config
        self.precision = precision
        size = net.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = (net.config.in_channels, height, width)
        self.passes = {"forward": 0, "backward": 0}

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """eps_theta(x_t, t, c): x_t [B, C, H, W]; t [B], int64 or float labels in [0, T-1]; float32 [B, C, H, W].

        condition: as the conditional kinds of model describe it; None where there is none.
        """
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            eps = self.net(x_t, t, **self._named(condition)).sample.float()
        self.passes["forward"] += len(x_t)
        if eps.requires_grad:
            eps.register_hook(self._count_backward)
        return eps

    def frozen(self) -> "Diffuser":
        """A copy that does not train; its passes are counted with this one's."""
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net).requires_grad_(False)
        return other

    def trainable(self) -> list[torch.nn.Parameter]:
        """The parameters that train, in the network's order."""
        return [p for p in self.net.parameters() if p.requires_grad]

    def weights(self) -> Tensor:
        """All of `trainable` as one vector, differentiable."""
        return torch.cat([p.flatten() for p in self.trainable()])

    def trained(self, vector: Tensor) -> Tensor:
        """The part of a vector over all parameters that belongs to `trainable`."""
        pieces = vector.split([p.numel() for p in self.net.parameters()])
        return torch.cat([v for v, p in zip(pieces, self.net.parameters(), strict=True) if p.requires_grad])

    def _named(self, condition: Tensor | None) -> dict[str, Tensor]:
        """The condition under the name that the network has for it."""
        return {}

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes["backward"] += len(gradient)


def to_model(images) -> Tensor:
    """uint8 [N, H, W, C] to float32 [N, C, H, W] in [-1, 1]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_images(x: Tensor):
    """float [N, C, H, W] in [-1, 1] to a uint8 array [N, H, W, C], rounded."""
    return (x.clamp(-1, 1) + 1).mul(127.5).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def unet_2d() -> type:
    """diffusers' UNet2DModel, without the second that diffusers spends on importing transformers for its LoRA and
    single-file loaders: in this process those two stay without it, all else finds it."""
    import diffusers.loaders  # draws up its list of names, with transformers

    flags = diffusers.utils.import_utils
    installed, flags._transformers_available = flags._transformers_available, False
    try:
        from diffusers.models.unets.unet_2d import UNet2DModel
    finally:
        flags._transformers_available = installed
    return UNet2DModel


def create(settings: dict, scheduler: dict, seed: int) -> Diffuser:
    """A fresh UNet2DModel; the initial weights depend on the seed alone."""
    network = unet_2d()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(**settings)
    return Diffuser(net.eval(), Schedule.from_config(scheduler), scheduler)


def load(source: str | Path, device: str | torch.device = "cpu", precision: str = "fp32") -> Diffuser:
    """Load a diffusers folder (or hub id) of an unconditional DDPM, as float32.

    Both layouts in use are read: `unet/` and `scheduler/` folders, or everything at the top (older DDPM repositories).
    UserError when weights are missing, damaged or a pickle.
    """
    folder = locate(source)
    unet, scheduler = folder / "unet", folder / "scheduler" / "scheduler_config.json"
    unet = unet if unet.is_dir() else folder
    scheduler = scheduler if scheduler.exists() else folder / "scheduler_config.json"
    if not (unet / WEIGHTS).exists():
        pickles = sorted(p.name for ending in ("*.bin", "*.pt", "*.ckpt") for p in unet.glob(ending))
        if pickles:
            raise UserError(f"{unet / pickles[0]} is a pickle, which can run code when read: convert it to {WEIGHTS}")
        raise UserError(
            f"no {WEIGHTS} in {unet}: expected a diffusers folder; give a local path or download the checkpoint"
        )
    network = unet_2d()
    try:
        net = network.from_pretrained(unet, use_safetensors=True, torch_dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot read the weights in {unet}: {str(error).splitlines()[0]}") from None
    config = read_json(scheduler)
    return Diffuser(net.to(device).eval(), Schedule.from_config(config), config, precision)


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
        if getattr(error, "errno", None) in REFUSED:
            reason = f"{error.strerror}; HF_HOME names the folder for models of the hub"
            raise UserError(f"cannot keep model {str(source)!r}: {reason}") from None
        raise UserError(
            f"model {str(source)!r} is neither a folder here nor reachable on the hub: "
            "put the local path of a diffusers folder in the task's `base`, or in the `source` of a text base"
        ) from None


def name_source(folder: Path, source: str) -> None:
    """Write source.json, which stands for a finished model; an id of the hub with the revision that it has now, so that
    what was computed is never of another one."""
    found, is_path = locate(source), Path(os.path.expanduser(source)).exists()
    write_json(folder / "source.json", {"source": source if is_path else f"{source.partition('@')[0]}@{found.name}"})


def save(model: Diffuser, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a folder that `DDPMPipeline.from_pretrained` loads, atomically."""
    with atomic(folder) as temporary:
        try:
            cast(model.net, dtype).save_pretrained(temporary / "unet")
        except SafetensorError as error:
            raise UserError(f"cannot write {folder}: {error}") from None
        config = read_json(temporary / "unet" / "config.json")
        config.pop("_name_or_path", None)  # where the weights were loaded from says nothing about them
        write_json(temporary / "unet" / "config.json", config)
        write_json(temporary / "scheduler" / "scheduler_config.json", {"_class_name": "DDPMScheduler", **model.config})
        parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
        write_json(temporary / "model_index.json", {"_class_name": "DDPMPipeline", **parts})


def cast(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A copy in another precision, by torch's own `to`: that of diffusers warns even where nothing is amiss."""
    return torch.nn.Module.to(copy.deepcopy(network), dtype)


def absent(folder: Path) -> str | None:
    """The reason why an optional output does not exist, or None when it does."""
    note = Path(folder) / "absent.txt"
    return note.read_text().strip() if note.exists() else None


TRAINABLE = {  # parts of parameter names
    "all": ("",),
    "cross-attention": ("attn2.",),
    "cross-attention-kv": ("attn2.to_k.", "attn2.to_v."),
}


def train_only(model: Diffuser, which: str) -> None:
    """Let only those parameters train: a key of TRAINABLE, or "others", all but cross-attention.

    UserError when there are none.
    """
    parts = TRAINABLE.get(which, TRAINABLE["cross-attention"])
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts) != (which == "others"))
    if not model.trainable():
        raise UserError(f"trainable: {which!r} matches no parameter of {type(model.net).__name__}")
