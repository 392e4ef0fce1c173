"""Images on disk and in models: uint8 [N, H, W, C], and float32 [N, C, H, W] in [-1, 1]."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_model(images: Any) -> Tensor:
    """uint8 [N, H, W, C] to float32 [N, C, H, W] in [-1, 1]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_images(x: Tensor) -> np.ndarray:
    """float [N, C, H, W] in [-1, 1] to a uint8 array [N, H, W, C], rounded."""
    pixels = (x.clamp(-1, 1) + 1).mul(127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
