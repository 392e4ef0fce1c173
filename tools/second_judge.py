"""Check the judge of captioned scenes with a second, independent one: python tools/second_judge.py BASE.

Ridge regression from the activations of an ImageNet network (extra `efficientnet`) to thing and style, fitted on
pictures of an augmentation stream of its own, each once as it is and once through the base's autoencoder, which every
picture of the base comes out of. Writes results/second-judge-<base>.json: its accuracy on held-out pictures, as they
are and decoded, and on the pictures that the base drew for its gate how often the two judges agree, and how often each
sees what was asked for. Outside the graph: it says something about the judge and feeds no other number.
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
from palinode.pipeline.stage import main

HEADS = ("concept", "style")
BATCH, FIT, HELD, RIDGE = 256, 40, 8, 1.0  # pictures; batches; penalty on standardised features


class Probe:
    """A linear classifier: weights [D + 1, classes] on standardised features [N, D]."""

    def __init__(self, x: np.ndarray, labels: np.ndarray):
        self.mean, self.std = x.mean(0), x.std(0) + 1e-6
        a, targets = self._standardised(x), np.eye(labels.max() + 1)[labels]
        self.weights = np.linalg.solve(a.T @ a + RIDGE * np.eye(a.shape[1]), a.T @ targets)

    def _standardised(self, x: np.ndarray) -> np.ndarray:
        return np.hstack([(x - self.mean) / self.std, np.ones((len(x), 1))])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Classes, int [N]."""
        return (self._standardised(x) @ self.weights).argmax(1)


def describe(network: features.Backbone, images: np.ndarray) -> np.ndarray:
    """[N, D]: mean and deviation over the picture of every channel of every layer, and the pooled features."""
    moments = []
    for first in range(0, len(images), BATCH):
        layers = network.layers(images[first : first + BATCH])
        moments.append(torch.cat([stat for layer in layers for stat in (layer.mean((2, 3)), layer.std((2, 3)))], 1))
    return np.hstack([torch.cat(moments).cpu().numpy(), network.features(images)])


def pictures(stream: Stream, batches: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A stream's pictures, uint8 [N, 32, 32, 3], and their classes of thing and style."""
    parts = [stream(step) for step in range(batches)]
    images = np.concatenate([to_images(part.images) for part in parts])
    return images, [torch.cat([getattr(part, head) for part in parts]).numpy() for head in HEADS]


@torch.inference_mode()
def decoded(model: TextToImage, images: np.ndarray) -> np.ndarray:
    """The same pictures after the base's autoencoder."""
    batches = [to_model(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    return np.concatenate([to_images(model.decode(model.encode(batch))) for batch in batches])


def tiles(path: Path, side: int = 32, gap: int = 1) -> np.ndarray:
    """The pictures of a contact sheet, uint8 [N, side, side, 3]."""
    from PIL import Image

    sheet = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = (length // (side + gap) for length in sheet.shape[:2])
    grid = sheet.reshape(rows, side + gap, columns, side + gap, 3).transpose(0, 2, 1, 3, 4)
    return grid[:, :, :side, :side].reshape(rows * columns, side, side, 3)


def run(base: str) -> None:
    networks, reasons = features.available(None)
    if features.EfficientNetLite0.name not in networks:
        raise UserError(reasons[features.EfficientNetLite0.name])
    network = networks[features.EfficientNetLite0.name]
    corpus, others = EmojiCorpus.read(), emoji.read_drawings(emoji.FOLDER, "others.npy")
    key = (params.load().root_seed, "second judge", base)
    folder = Path("models") / base
    model = text_to_image.load(folder / "base", torch.device("cpu"), "fp32")
    images, labels = pictures(Stream(corpus, others, BATCH, (*key, "fit")), FIT)
    x = np.vstack([describe(network, images), describe(network, decoded(model, images))])
    probes = [Probe(x, np.tile(some, 2)) for some in labels]
    images, labels = pictures(Stream(corpus, others, BATCH, (*key, "held"), held=True), HELD)
    held = {"held_out": describe(network, images), "held_out_decoded": describe(network, decoded(model, images))}

    drawn = tiles(folder / "gate/concepts.png")
    with torch.inference_mode():
        first = [logits.argmax(1).numpy() for logits in storage.load(folder / "judge", SceneJudge)(to_model(drawn))]
    description = describe(network, drawn)
    second = [probe(description) for probe in probes]
    asked = np.divmod(np.arange(len(drawn)), len(STYLES))
    found = {}
    for i, head in enumerate(HEADS):
        one, two, truth = first[i], second[i], asked[i]
        pairs = {"agree": one == two, "first_right": one == truth, "second_right": two == truth}
        pairs = {what: probes[i](x) == labels[i] for what, x in held.items()} | pairs
        found[head] = {what: share(int(hit.sum()), len(hit)) for what, hit in pairs.items()}
    write_json(Path(f"results/second-judge-{base}.json"), found)
    for head, values in found.items():
        print(head, ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items()))


if __name__ == "__main__":
    main(run)
