"""Unconditional pixel models: a diffusers folder of a UNet2DModel with its scheduler."""

from pathlib import Path

import torch
from safetensors import SafetensorError

from palinode.core.errors import UserError
from palinode.core.io import atomic, read_json, write_json
from palinode.models.denoiser import Denoiser, Diffuser
from palinode.models.files import cast, load_network, locate, read_scheduler, with_safetensors
from palinode.models.schedule import Schedule


def create(config: dict, scheduler: dict, seed: int) -> Diffuser:
    """A fresh UNet2DModel; the initial weights depend on the seed alone. config: arguments of UNet2DModel."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet2DModel(**config)
    return Diffuser(net.eval(), Schedule.from_config(scheduler), scheduler)


def load(source: str | Path, device: str | torch.device = "cpu", precision: str = "fp32") -> Diffuser:
    """Load a diffusers folder (or hub id) of an unconditional DDPM, as float32.

    Both layouts in use are read: `unet/` and `scheduler/` folders, or everything at the top (older DDPM repositories).
    UserError when weights are missing or damaged, or a part is.
    """
    folder = locate(source)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    readable = with_safetensors(unet)
    config = read_scheduler(Path(source), folder)
    from diffusers.models.unets.unet_2d import UNet2DModel

    net = load_network(UNet2DModel, readable, unet)
    return Diffuser(net.to(device).eval(), Schedule.from_config(config), config, precision)


def save(model: Denoiser, folder: Path, dtype: torch.dtype = torch.float32) -> None:
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
