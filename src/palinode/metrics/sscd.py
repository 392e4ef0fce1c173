"""SSCD, the copy descriptor of the literature, from a file that the user brings: its weights are not shipped.

Pizzi et al., CVPR 2022 (arXiv 2202.10261): pictures that are edits of one another have descriptors with a large dot
product. Official repository: `facebookresearch/sscd-copy-detection`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palinode.core.errors import UserError

THRESHOLD = 0.75  # of `sscd_disc_mixup`, for 90 % precision on DISC, as its repository has it
SIDE = 288  # this and the next are its transform
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CHUNK = 16  # pictures at a time

Network = Callable[[Tensor], Tensor]


def as_rgb(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 1 or 3] with three channels."""
    return np.broadcast_to(images, (*images.shape[:3], 3))


class SSCD:
    """A network [N, 3, 288, 288] -> [N, D] from a file.

    The file is TorchScript, or ONNX (`.onnx`, for which the package onnxruntime is needed). An ONNX network takes uint8
    [N, 288, 288, 3] as `image` and normalises by itself. UserError for a file that is neither.
    """

    def __init__(self, path: str):
        if not Path(path).is_file():
            raise UserError(f"sscd: {path} is missing; SSCD's repository has `sscd_disc_mixup.torchscript.pt`")
        try:
            self._network = _load_onnx(path) if path.endswith(".onnx") else _load_torchscript(path)
            shape = self._network(torch.zeros(1, 3, SIDE, SIDE)).shape
        except ImportError:
            raise UserError("sscd: an ONNX file needs the package onnxruntime, which is not installed") from None
        except Exception as error:  # noqa: BLE001  onnxruntime's own exceptions have no common base
            raise UserError(f"sscd: {path} cannot be used: {str(error).strip().splitlines()[0]}") from None
        if len(shape) != 2 or shape[0] != 1:
            raise UserError(f"sscd: {path} maps a picture to {tuple(shape)}, not to one descriptor")

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Tensor:
        """Unit descriptors [N, D] of pictures uint8 [N, H, W, 3]."""
        descriptors = []
        for part in torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).split(CHUNK):
            resized = functional.interpolate(part / 255, (SIDE, SIDE), mode="bilinear", antialias=True)
            descriptors.append(functional.normalize(self._network(resized), dim=1))
        return torch.cat(descriptors)

    def copies(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Whether each picture [N, H, W, 3] is a copy of the reference [H, W, 3], bool [N]."""
        return (self(images) @ self(reference[None])[0] > THRESHOLD).numpy()


def _load_torchscript(path: str) -> Network:
    network = torch.jit.load(path, map_location="cpu").eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return lambda images: network((images - mean) / std)


def _load_onnx(path: str) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def network(images: Tensor) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return torch.from_numpy(session.run(None, {"image": pixels})[0])

    return network
