"""SSCD, the copy descriptor of the literature, from a file that the user brings: its weights are not shipped.

Pizzi et al. 2022 (arXiv 2202.10261): pictures that are edits of one another have descriptors with a large dot product.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palinode.errors import UserError

THRESHOLD = 0.75  # of `sscd_disc_mixup`, for 90 % precision on DISC, as its repository has it
SIDE, MEAN, STD = 288, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # its transform


class SSCD:
    """A network [N, 3, 288, 288] -> [N, D] from TorchScript, or from ONNX (`.onnx`, the package onnxruntime is needed)
    that takes uint8 [N, 288, 288, 3] as `image` and normalises by itself. UserError for a file that is none."""

    def __init__(self, path: str):
        if not Path(path).is_file():
            raise UserError(f"sscd: {path} is missing; SSCD's repository has `sscd_disc_mixup.torchscript.pt`")
        try:
            self._network = _onnx(path) if path.endswith(".onnx") else _torchscript(path)
            shape = self._network(torch.zeros(1, 3, SIDE, SIDE)).shape
        except ImportError:
            raise UserError("sscd: an ONNX file needs the package onnxruntime, which is not installed") from None
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise UserError(f"sscd: {path} cannot be used: {str(error).strip().splitlines()[0]}") from None
        if len(shape) != 2 or shape[0] != 1:
            raise UserError(f"sscd: {path} maps a picture to {tuple(shape)}, not to one descriptor")

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Tensor:
        """Unit descriptors [N, D] of pictures uint8 [N, H, W, 3]."""
        found = []
        for some in torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).split(16):
            resized = functional.interpolate(some / 255, (SIDE, SIDE), mode="bilinear", antialias=True)
            found.append(functional.normalize(self._network(resized), dim=1))
        return torch.cat(found)

    def copies(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Whether each picture [N, H, W, 3] is a copy of the reference [H, W, 3], bool [N]."""
        return (self(images) @ self(reference[None])[0] > THRESHOLD).numpy()


def _torchscript(path: str):
    network = torch.jit.load(path, map_location="cpu").eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return lambda images: network((images - mean) / std)


def _onnx(path: str):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def network(images: Tensor) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return torch.from_numpy(session.run(None, {"image": pixels})[0])

    return network
