"""Loading and saving a model of any kind: the folder says which kind it is."""

from pathlib import Path
from typing import Literal

import torch

from palinode.core.errors import UserError
from palinode.models import class_conditional, files, text_to_image, unconditional
from palinode.models.denoiser import Denoiser, Diffuser

Kind = Literal["unconditional", "class", "text"]


def load(
    folder: str | Path, device: str | torch.device = "cpu", precision: str = "fp32", kind: Kind | None = None
) -> Diffuser:
    """A diffusers folder, or one that names its source, as float32. UserError when it is not of the kind asked for."""
    place = files.locate(folder)
    if (place / "text_encoder").is_dir():
        model: Diffuser = text_to_image.load(place, device, precision)
        loaded: Kind = "text"
    else:
        model = unconditional.load(folder, device, precision)
        loaded = "class" if model.net.config.num_class_embeds else "unconditional"
        if loaded == "class":
            model = class_conditional.wrap(model, str(place))
    if kind is not None and loaded != kind:
        raise UserError(f"{folder} is a model of the kind {loaded!r}, expected is {kind!r}")
    return model


def save(model: Denoiser, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """In the format that the model was loaded from."""
    if isinstance(model, text_to_image.TextToImage):
        text_to_image.save(model, folder, dtype)
    else:
        unconditional.save(model, folder, dtype)
