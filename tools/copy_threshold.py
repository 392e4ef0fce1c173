"""Check the thresholds of pixel copies on copies made for the purpose: python tools/copy_threshold.py.

Copies: every fixed picture under each of EDITS, and its distance to itself. Others: rendered scenes on the same
backgrounds and all other fixed pictures, and their distance to the nearest picture that is not their own. Writes
results/copy-threshold.json: the largest threshold that still has 90 % precision with equally many copies and others;
precision, recall, also by edit, and false alarms of the two in use, `text_gate.COPY`, for what a base must show, and
`ground.REPEATED`, for what unlearning must remove. Outside the graph: it feeds no other number.
"""

import io as buffers
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palinode import params
from palinode.core import seeds
from palinode.core.estimate import share
from palinode.core.images import to_images
from palinode.core.io import write_json
from palinode.data import emoji
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs
from palinode.memorization.ground_truth import REPEATED
from palinode.metrics.copies import COPY, copy_distance
from palinode.pipeline.stage import main

OUT = Path("results/copy-threshold.json")
PRECISION, SCENES = 0.9, 2048


def jpeg(images: np.ndarray) -> np.ndarray:
    """Saved as JPEG of quality 50 and read again."""
    from PIL import Image

    def saved(image: np.ndarray) -> np.ndarray:
        stream = buffers.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=50)
        return np.asarray(Image.open(stream))

    return np.stack([saved(image) for image in images])


def moved(images: np.ndarray) -> np.ndarray:
    """One pixel to the right; the left edge stays."""
    return np.concatenate([images[:, :, :1], images[:, :, :-1]], 2)


def filtered(images: np.ndarray, change) -> np.ndarray:
    """change: of a float tensor [N, 3, H, W] in [0, 1]."""
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 255
    return to_images(change(x).clamp(0, 1) * 2 - 1)


def blurred(x: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def noisy(x: Tensor) -> Tensor:
    return x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


EDITS = {
    "noise of 0.05": lambda images: filtered(images, noisy),
    "blur over 3 x 3": lambda images: filtered(images, blurred),
    "10 % darker": lambda images: filtered(images, lambda x: 0.9 * x),
    "JPEG of quality 50": jpeg,
    "a pixel to the right": moved,
    "half the resolution": lambda images: filtered(
        images, lambda x: functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    ),
}  # fmt: skip


def precision(copies: np.ndarray, others: np.ndarray, threshold: float) -> float:
    """Share of copies among what lies below the threshold, if copies and others are equally many; nan for nothing."""
    hit, false = (copies < threshold).mean(), (others < threshold).mean()
    return float(hit / (hit + false)) if hit + false else float("nan")


def calibrated(copies: np.ndarray, others: np.ndarray) -> float:
    """The largest distance at which, and below which, precision is at least PRECISION."""
    reached = 0.0
    for threshold in np.unique(np.concatenate([copies, others])):
        if precision(copies, others, np.nextafter(threshold, np.inf)) < PRECISION:
            return reached
        reached = float(threshold)
    return reached


def run() -> None:
    corpus = EmojiCorpus.read()
    generator = seeds.generator(params.load().root_seed, "copy threshold")
    fixed = to_images(emoji.fixed(corpus.fixed, corpus.pictures, corpus.stickers, generator) * 2 - 1)
    scenes = Scenes.draw(seen_pairs(list(corpus.concepts)), SCENES, generator).render(corpus, generator)
    own = np.eye(len(fixed), dtype=bool)
    by_edit = {name: copy_distance(edit(fixed), corpus)[own] for name, edit in EDITS.items()}
    copies = np.concatenate([*by_edit.values()])
    among = np.where(own, np.inf, copy_distance(fixed, corpus)).min(1)
    others = np.concatenate([copy_distance(to_images(scenes), corpus).min(1), among])
    found = {"largest_with_90_percent_precision": calibrated(copies, others), "used": []}
    for threshold in (COPY, REPEATED):
        below = {name: far < threshold for name, far in ({"all": copies, "others": others} | by_edit).items()}
        shares = {name: share(int(hits.sum()), len(hits)) for name, hits in below.items()}
        found["used"].append({
            "threshold": threshold, "precision": precision(copies, others, threshold), "recall": shares.pop("all"),
            "false_alarms": shares.pop("others"), "recall_by_edit": shares,
        })  # fmt: skip
        print(threshold, f"precision {found['used'][-1]['precision']:.1%}, recall {below['all'].mean():.1%}")
    write_json(OUT, found)
    print("90 % precision up to", found["largest_with_90_percent_precision"])


if __name__ == "__main__":
    main(run)
