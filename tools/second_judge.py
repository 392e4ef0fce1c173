"""Check the judge of captioned scenes with a second, independent one: python tools/second_judge.py BASE.

Ridge regression from the activations of an ImageNet network (extra `efficientnet`) to thing and style. It is fitted on
pictures of an augmentation stream of its own, each once as it is and once through the base's autoencoder, which every
picture of the base comes out of.

Writes results/second-judge-<base>.json: its accuracy on held-out pictures, as they are and decoded, and on the pictures
that the base drew for its gate how often the two judges agree, and how often each sees what was asked for. Outside the
graph: it says something about the judge and feeds no other number.
"""

from pathlib import Path

import numpy as np
import torch

from palinode import params
from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.classifiers.scene_pictures import Stream
from palinode.core.errors import UserError
from palinode.core.estimate import share
from palinode.core.images import to_images, to_model
from palinode.core.io import write_json
from palinode.data import emoji
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus
from palinode.metrics import features
from palinode.models import text_to_image
from palinode.models.text_to_image import TextToImage
from palinode.pipeline.stage import run_tool

HEADS = ("concept", "style")
BATCH = 256  # pictures
FIT = 40  # batches
HELD = 8  # batches
RIDGE = 1.0  # penalty on standardised features

Labels = list[np.ndarray]  # classes, one array for each of HEADS


class Probe:
    """A linear classifier: weights [D + 1, classes] on standardised features [N, D]."""

    def __init__(self, x: np.ndarray, labels: np.ndarray):
        self.mean = x.mean(0)
        self.std = x.std(0) + 1e-6
        a = self._standardise(x)
        targets = np.eye(labels.max() + 1)[labels]
        self.weights = np.linalg.solve(a.T @ a + RIDGE * np.eye(a.shape[1]), a.T @ targets)

    def _standardise(self, x: np.ndarray) -> np.ndarray:
        return np.hstack([(x - self.mean) / self.std, np.ones((len(x), 1))])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Classes, int [N]."""
        return (self._standardise(x) @ self.weights).argmax(1)


def describe(network: features.Backbone, images: np.ndarray) -> np.ndarray:
    """[N, D]: mean and deviation over the picture of every channel of every layer, and the pooled features."""
    moments = []
    for first in range(0, len(images), BATCH):
        layers = network.layers(images[first : first + BATCH])
        moments.append(torch.cat([stat for layer in layers for stat in (layer.mean((2, 3)), layer.std((2, 3)))], 1))
    return np.hstack([torch.cat(moments).cpu().numpy(), network.features(images)])


def read_stream(stream: Stream, batches: int) -> tuple[np.ndarray, Labels]:
    """A stream's pictures, uint8 [N, 32, 32, 3], and their classes of thing and style."""
    parts = [stream(step) for step in range(batches)]
    images = np.concatenate([to_images(part.images) for part in parts])
    return images, [torch.cat([getattr(part, head) for part in parts]).numpy() for head in HEADS]


@torch.inference_mode()
def decode(model: TextToImage, images: np.ndarray) -> np.ndarray:
    """The same pictures after the base's autoencoder."""
    batches = [to_model(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    return np.concatenate([to_images(model.decode(model.encode(batch))) for batch in batches])


def cut_tiles(path: Path, side: int = 32, gap: int = 1) -> np.ndarray:
    """The pictures of a contact sheet, uint8 [N, side, side, 3]."""
    from PIL import Image

    sheet = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = (length // (side + gap) for length in sheet.shape[:2])
    grid = sheet.reshape(rows, side + gap, columns, side + gap, 3).transpose(0, 2, 1, 3, 4)
    return grid[:, :, :side, :side].reshape(rows * columns, side, side, 3)


def load_network() -> features.Backbone:
    """UserError when the ImageNet network is not installed."""
    networks, reasons = features.load_available(None)
    if features.EfficientNetLite0.name not in networks:
        raise UserError(reasons[features.EfficientNetLite0.name])
    return networks[features.EfficientNetLite0.name]


def fit_probes(
    network: features.Backbone, model: TextToImage, corpus: EmojiCorpus, key: tuple
) -> tuple[list[Probe], list[dict[str, np.ndarray]]]:
    """A probe for each of HEADS, and which held-out pictures each gets right, as they are and decoded."""
    others = emoji.read_drawings(emoji.FOLDER, "others.npy")
    images, labels = read_stream(Stream(corpus, others, BATCH, (*key, "fit")), FIT)
    x = np.vstack([describe(network, images), describe(network, decode(model, images))])
    probes = [Probe(x, np.tile(classes, 2)) for classes in labels]

    images, labels = read_stream(Stream(corpus, others, BATCH, (*key, "held"), held=True), HELD)
    plain = describe(network, images)
    decoded = describe(network, decode(model, images))
    right = []
    for probe, truth in zip(probes, labels, strict=True):
        right.append({"held_out": probe(plain) == truth, "held_out_decoded": probe(decoded) == truth})
    return probes, right


def compare(drawn: np.ndarray, judge: SceneJudge, probes: list[Probe], description: np.ndarray) -> list[dict]:
    """Of each of HEADS, where the two judges agree on what the base drew, and where each sees what was asked for.

    drawn: as in gate/concepts.png, five styles of every thing; description: what `describe` says of it.
    """
    with torch.inference_mode():
        first = [logits.argmax(1).numpy() for logits in judge(to_model(drawn))]
    wanted = np.divmod(np.arange(len(drawn)), len(STYLES))
    compared = []
    for seen, probe, truth in zip(first, probes, wanted, strict=True):
        second = probe(description)
        compared.append({"agree": seen == second, "first_right": seen == truth, "second_right": second == truth})
    return compared


def run(base: str) -> None:
    network = load_network()
    folder = Path("models") / base
    model = text_to_image.load(folder / "model")
    key = (params.load().root_seed, "second judge", base)
    probes, right = fit_probes(network, model, EmojiCorpus.read(), key)

    drawn = cut_tiles(folder / "gate/concepts.png")
    judge = storage.load(folder / "judge", SceneJudge)
    compared = compare(drawn, judge, probes, describe(network, drawn))
    measured = {}
    for head, held_out, agreement in zip(HEADS, right, compared, strict=True):
        hits = held_out | agreement
        measured[head] = {what: share(int(hit.sum()), len(hit)) for what, hit in hits.items()}
    write_json(Path(f"results/second-judge-{base}.json"), measured)
    for head, values in measured.items():
        print(head, ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items()))


if __name__ == "__main__":
    run_tool(run)
