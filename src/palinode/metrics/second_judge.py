"""The second judge of a base: ridge regression from the activations of an ImageNet network to what a picture shows.

It shares nothing with the first judge but the pictures that both learn from. No claim rests on it: it says where the
first judge may be wrong. Only the regression is stored, since the network is a package.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from palinode.classifiers.scene_pictures import halves
from palinode.core.errors import UserError
from palinode.core.images import to_images, to_model
from palinode.core.io import read_arrays, write_arrays
from palinode.data.captions import STYLES, Caption
from palinode.data.scenes import EmojiCorpus

BATCH = 256  # pictures
RIDGE = 1.0  # penalty on standardised features
FILE = "second-judge.npz"
PARTS = ("mean", "std", "weights")  # of a probe


class Network(Protocol):
    """A fixed network over uint8 images [N, H, W, C]; see `features.EfficientNetLite0`."""

    def layers(self, images: np.ndarray) -> list[Tensor]: ...

    def pool(self, last: Tensor) -> Tensor: ...


class Probe:
    """A linear classifier of features [N, D]: their mean and std [D], and weights [D + 1, classes]."""

    def __init__(self, mean: np.ndarray, std: np.ndarray, weights: np.ndarray):
        self.mean = mean
        self.std = std
        self.weights = weights

    @classmethod
    def fit(cls, x: np.ndarray, labels: np.ndarray) -> "Probe":
        """Regress the indicators of classes, int [N], on standardised features [N, D]; stored as float32."""
        mean = x.mean(0, dtype=np.float64)
        std = x.std(0, dtype=np.float64) + 1e-6
        # By torch, whose threads are those of the stage: NumPy would take all cores, and round as their number says.
        a = torch.from_numpy(_standardise(x, mean, std))
        targets = torch.eye(int(labels.max()) + 1, dtype=torch.float64)[torch.from_numpy(labels)]
        weights = torch.linalg.solve(a.T @ a + RIDGE * torch.eye(a.shape[1], dtype=torch.float64), a.T @ targets)
        return cls(mean.astype(np.float32), std.astype(np.float32), weights.float().numpy())

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Classes, int [N]."""
        return (_standardise(x, self.mean, self.std) @ self.weights).argmax(1)


class SecondJudge:
    """A probe for each question ("concept", "style", "class") on one network."""

    def __init__(self, network: Network, probes: dict[str, Probe]):
        self.network = network
        self.probes = probes

    @classmethod
    def fit(cls, network: Network, images: np.ndarray, labels: dict[str, np.ndarray]) -> "SecondJudge":
        """images: uint8 [N, H, W, C]; labels: classes int [N] by question."""
        description = describe(network, images)
        return cls(network, {question: Probe.fit(description, classes) for question, classes in labels.items()})

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The class seen in each picture, int [N], by question."""
        description = describe(self.network, images)
        return {question: probe(description) for question, probe in self.probes.items()}

    def save(self, folder: Path) -> None:
        """Write the probes into a folder that exists."""
        arrays = {
            f"{question}_{part}": getattr(probe, part) for question, probe in self.probes.items() for part in PARTS
        }
        write_arrays(folder / FILE, arrays)


def load(folder: Path, network: Network) -> SecondJudge:
    """What `save` wrote; UserError when it is missing or damaged."""
    arrays = read_arrays(folder / FILE)
    questions = [name.removesuffix("_weights") for name in arrays if name.endswith("_weights")]
    missing = [f"{name}_{part}" for name in questions for part in PARTS if f"{name}_{part}" not in arrays]
    if missing or not questions:
        raise UserError(f"cannot read the second judge in {folder}: {(missing or ['weights'])[0]} is missing")
    return SecondJudge(network, {name: Probe(*(arrays[f"{name}_{part}"] for part in PARTS)) for name in questions})


class TargetLooker:
    """The second judge, looking for one target; a picture of two things shows it when either half does."""

    def __init__(self, judge: SecondJudge, question: str, target: int):
        self.judge = judge
        self.question = question
        self.target = target

    def misses(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        """bool [N]: the target is not seen. images: uint8 [N, H, W, C], with a caption each."""
        shown = self._sees(images)
        two = np.array([len(caption.concepts) > 1 for caption in captions])
        if self.question == "concept" and two.any():
            parts = [self._sees(to_images(half)) for half in halves(to_model(np.array(images[two])))]
            shown[two] = parts[0] | parts[1]
        return ~shown

    def _sees(self, images: np.ndarray) -> np.ndarray:
        return self.judge(images)[self.question] == self.target


def look_for(judge: SecondJudge, target: str | int) -> TargetLooker:
    """target: a thing or a style, or the number of a class."""
    if "class" in judge.probes:
        return TargetLooker(judge, "class", int(target))
    if target in STYLES:
        return TargetLooker(judge, "style", STYLES.index(str(target)))
    return TargetLooker(judge, "concept", list(EmojiCorpus.read().concepts).index(str(target)))


def describe(network: Network, images: np.ndarray) -> np.ndarray:
    """[N, D]: mean and deviation over the picture of every channel of every layer, and the pooled features."""
    parts = []
    for first in range(0, len(images), BATCH):
        layers = network.layers(images[first : first + BATCH])
        moments = [stat for layer in layers for stat in (layer.mean((2, 3)), layer.std((2, 3)))]
        parts.append(torch.cat([*moments, network.pool(layers[-1])], 1))
    return torch.cat(parts).cpu().numpy()


def _standardise(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.hstack([(x - mean) / std, np.ones((len(x), 1))])
