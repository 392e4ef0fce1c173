"""Check the thresholds of pixel copies on copies made for the purpose: python tools/copy_threshold.py.

Copies: every fixed picture under each of EDITS, and its distance to itself. Others: rendered scenes on the same
backgrounds and all other fixed pictures, and their distance to the nearest picture that is not their own.

Writes results/copy-threshold.json. It holds the largest threshold that still has 90 % precision with equally many
copies and others. Of the two thresholds in use it holds precision, recall, also by edit, and false alarms. `COPY` of
metrics/copies.py is for what a base must show, `REPEATED` of memorization/ground_truth.py for what unlearning must
remove. Outside the graph: it feeds no other number.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from palinode import params
from palinode.core import seeds
from palinode.core.estimate import share
from palinode.core.images import to_images
from palinode.core.io import write_json
from palinode.data import emoji
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs
from palinode.memorization.ground_truth import REPEATED
from palinode.metrics.copies import COPY, copy_distance
from palinode.pipeline.stage import run_tool

OUT = Path("results/copy-threshold.json")
PRECISION = 0.9
SCENES = 2048

Edit = Callable[[np.ndarray], np.ndarray]


def compress(images: np.ndarray) -> np.ndarray:
    """Saved as JPEG of quality 50 and read again."""
    from PIL import Image

    compressed = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=50)
        compressed.append(np.asarray(Image.open(stream)))
    return np.stack(compressed)


def shift(images: np.ndarray) -> np.ndarray:
    """One pixel to the right; the left edge stays."""
    return np.concatenate([images[:, :, :1], images[:, :, :-1]], 2)


def edit(change: Callable[[Tensor], Tensor]) -> Edit:
    """A change of a float tensor [N, 3, H, W] in [0, 1] as one of uint8 images [N, H, W, 3]."""

    def apply(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 255
        return to_images(change(x).clamp(0, 1) * 2 - 1)

    return apply


@edit
def add_noise(x: Tensor) -> Tensor:
    return x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


@edit
def blur(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


@edit
def darken(x: Tensor) -> Tensor:
    return 0.9 * x


@edit
def halve_resolution(x: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")


EDITS: dict[str, Edit] = {
    "noise of 0.05": add_noise,
    "blur over 3 x 3": blur,
    "10 % darker": darken,
    "JPEG of quality 50": compress,
    "a pixel to the right": shift,
    "half the resolution": halve_resolution,
}


def precision(copies: np.ndarray, others: np.ndarray, threshold: float) -> float:
    """Share of copies among what lies below the threshold, if copies and others are equally many; nan for nothing."""
    hit = (copies < threshold).mean()
    false = (others < threshold).mean()
    return float(hit / (hit + false)) if hit + false else float("nan")


def calibrate(copies: np.ndarray, others: np.ndarray) -> float:
    """The largest distance at which, and below which, precision is at least PRECISION."""
    reached = 0.0
    for threshold in np.unique(np.concatenate([copies, others])):
        if precision(copies, others, np.nextafter(threshold, np.inf)) < PRECISION:
            return reached
        reached = float(threshold)
    return reached


def measure_distances(corpus: EmojiCorpus, root_seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Distances of copies to their own picture, by edit, and of others to the nearest picture."""
    generator = seeds.generator(root_seed, "copy threshold")
    fixed = to_images(emoji.fixed(corpus.fixed, corpus.pictures, corpus.stickers, generator) * 2 - 1)
    scenes = Scenes.draw(seen_pairs(list(corpus.concepts)), SCENES, generator).render(corpus, generator)
    own = np.eye(len(fixed), dtype=bool)
    by_edit = {name: copy_distance(change(fixed), corpus)[own] for name, change in EDITS.items()}
    among = np.where(own, np.inf, copy_distance(fixed, corpus)).min(1)
    others = np.concatenate([copy_distance(to_images(scenes), corpus).min(1), among])
    return by_edit, others


def assess(threshold: float, by_edit: dict[str, np.ndarray], others: np.ndarray) -> dict:
    """Precision, recall and false alarms of one threshold."""
    copies = np.concatenate([*by_edit.values()])
    distances = {"all": copies, "others": others} | by_edit
    shares = {name: share(int((values < threshold).sum()), len(values)) for name, values in distances.items()}
    return {
        "threshold": threshold,
        "precision": precision(copies, others, threshold),
        "recall": shares.pop("all"),
        "false_alarms": shares.pop("others"),
        "recall_by_edit": shares,
    }


def run() -> None:
    by_edit, others = measure_distances(EmojiCorpus.read(), params.load().root_seed)
    largest = calibrate(np.concatenate([*by_edit.values()]), others)
    used = [assess(threshold, by_edit, others) for threshold in (COPY, REPEATED)]
    for entry in used:
        shown = f"precision {entry['precision']:.1%}, recall {entry['recall']['value']:.1%}"
        print(entry["threshold"], shown)
    write_json(OUT, {"largest_with_90_percent_precision": largest, "used": used})
    print("90 % precision up to", largest)


if __name__ == "__main__":
    run_tool(run)
