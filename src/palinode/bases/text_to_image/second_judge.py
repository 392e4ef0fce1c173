"""The second judge of captioned scenes, and how it compares with the first.

It learns from an augmentation stream of its own, each picture once as it is and once through the base's autoencoder,
which every picture of the base comes out of.
"""

from pathlib import Path

import numpy as np
import torch

from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.classifiers.scene_pictures import Stream
from palinode.core.errors import Absent
from palinode.core.estimate import share
from palinode.core.images import to_images, to_model
from palinode.core.io import atomic, write_json
from palinode.core.work import Work
from palinode.data import emoji
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus
from palinode.metrics.features import EfficientNetLite0
from palinode.metrics.second_judge import SecondJudge
from palinode.models import text_to_image
from palinode.models.text_to_image import TextToImage
from palinode.params.stage_settings import FitSecondSceneJudge

QUESTIONS = ("concept", "style")
BATCH = 256  # pictures
SIDE = 32  # pixels of a picture on a contact sheet
GAP = 1  # pixels between two

Labels = dict[str, np.ndarray]  # classes by question


def run(work: Work) -> None:
    settings = work.settings(FitSecondSceneJudge)
    if settings.reason:
        raise Absent(settings.reason)
    _, data, model_folder, judge_folder, gate_folder = work.inputs
    model = text_to_image.load(model_folder, work.device)
    others = emoji.read_drawings(data, "others.npy")
    corpus = EmojiCorpus.read(data, settings.corpus)
    key = (settings.root_seed, "second judge", settings.name)
    images, labels = read_stream(Stream(corpus, others, BATCH, (*key, "fit")), settings.fit)
    both = np.concatenate([images, decode(model, images)])
    twice = {question: np.tile(classes, 2) for question, classes in labels.items()}
    judge = SecondJudge.fit(EfficientNetLite0(work.device), both, twice)

    images, truth = read_stream(Stream(corpus, others, BATCH, (*key, "held"), held=True), settings.held)
    plain = judge(images)
    decoded = judge(decode(model, images))
    drawn = cut_tiles(gate_folder / "concepts.png")
    compared = compare(drawn, storage.load(judge_folder, SceneJudge), judge)
    measured = {}
    for question in QUESTIONS:
        hits = {
            "held_out": plain[question] == truth[question],
            "held_out_decoded": decoded[question] == truth[question],
        }
        hits |= compared[question]
        measured[question] = {what: share(int(hit.sum()), len(hit)) for what, hit in hits.items()}
    with atomic(work.outputs[0]) as folder:
        folder.mkdir(parents=True)
        judge.save(folder)
        write_json(folder / "accuracy.json", measured)
    for question, values in measured.items():
        shown = ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items())
        print(f"{work.name}: {question}: {shown}")


def read_stream(stream: Stream, batches: int) -> tuple[np.ndarray, Labels]:
    """A stream's pictures, uint8 [N, 32, 32, 3], and their classes of thing and style."""
    parts = [stream(step) for step in range(batches)]
    images = np.concatenate([to_images(part.images) for part in parts])
    return images, {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in QUESTIONS}


@torch.inference_mode()
def decode(model: TextToImage, images: np.ndarray) -> np.ndarray:
    """The same pictures after the base's autoencoder."""
    batches = [to_model(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    return np.concatenate([to_images(model.decode(model.encode(batch.to(model.device)))) for batch in batches])


def cut_tiles(path: Path) -> np.ndarray:
    """The pictures of a contact sheet, uint8 [N, 32, 32, 3]."""
    from PIL import Image

    sheet = np.asarray(Image.open(path).convert("RGB"))
    pitch = SIDE + GAP
    rows, columns = (length // pitch for length in sheet.shape[:2])
    grid = sheet.reshape(rows, pitch, columns, pitch, 3).transpose(0, 2, 1, 3, 4)
    return grid[:, :, :SIDE, :SIDE].reshape(rows * columns, SIDE, SIDE, 3)


def compare(drawn: np.ndarray, first: SceneJudge, second: SecondJudge) -> dict[str, Labels]:
    """By question, where the two judges agree on what the base drew, and where each sees what was asked for.

    drawn: as in gate/concepts.png, five styles of every thing; bool [N] each.
    """
    with torch.inference_mode():
        logits = first(to_model(drawn))
    seen = second(drawn)
    wanted = np.divmod(np.arange(len(drawn)), len(STYLES))
    compared = {}
    for question, scores, truth in zip(QUESTIONS, logits, wanted, strict=True):
        by_first = scores.argmax(1).numpy()
        by_second = seen[question]
        compared[question] = {
            "agree": by_first == by_second,
            "first_right": by_first == truth,
            "second_right": by_second == truth,
        }
    return compared
