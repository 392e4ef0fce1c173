"""One face for text-to-image and class-conditional models: their folders, and what they are asked."""

from pathlib import Path

import torch

from palinode import class_conditional, models, text_to_image
from palinode.models import Diffuser


def load(folder: Path, device: str | torch.device = "cpu", precision: str = "fp32") -> Diffuser:
    """A text-to-image or class-conditional folder, or one that names its source; UserError for another kind."""
    folder = models.locate(folder)
    if (folder / "text_encoder").is_dir():
        return text_to_image.load(folder, device, precision)
    return class_conditional.of(models.load(folder, device, precision), str(folder))


def save(model: Diffuser, folder: Path) -> None:
    """fp32, in the format it was loaded from."""
    if isinstance(model, text_to_image.TextToImage):
        text_to_image.save(model, folder, torch.float32)
    else:
        models.save(model, folder)


def prompt(text: str, kind: str) -> str | int | None:
    """What a model of this kind ("text" or "class") is asked for a caption: the text, or a class, None if empty."""
    if kind == "text":
        return text
    return int(text) if text else None
