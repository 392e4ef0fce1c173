"""Pictures of a memorized prompt, split into what to forget and what to keep.

"Data Unlearning in Diffusion Models" (SISS; Alberti et al., ICLR 2025, arXiv 2503.01034), section on Stable Diffusion,
edits each prompt by hand until its pictures vary, draws 128, and labels them by k-means on pixels. Two of its steps are
not published, and are rules here.

- *The modified prompt.* First come the prompts without the first word, without the second, and so on. If none of these
  serves, a word is put in, at each place in turn: before the first word, before the second, ..., after the last, and
  again from the front. The words are drawn from those that the model knows. A few pictures each give a share of copies.
  Of either group the prompt wins whose share lies nearest the middle of the wanted range, the first of equals. A share
  outside the range cannot win.
- *The memorized cluster.* 2-means starts from the reference and the picture farthest from it, so that nothing is drawn.
  The cluster whose centre ends nearest the reference is the memorized one. The reference is the medoid of pictures
  drawn under the original prompt.

The rule "unprompted" is this project's, for a base that draws one picture a prompt. Such a base has no useful edit: its
pictures are all copies or none are, and a share in between is one picture that straddles the threshold. Under this rule
half of the pictures come from the original prompt and half from the null prompt, which takes the modified prompt's
place. All of them train under the original prompt. So the copy is what is forgotten, and what the model draws without a
prompt is what is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from palinode.metrics.copies import COPY


def rms_distance(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean squared differences of pixels in [0, 1], uint8 [N, H, W, C] and [M, H, W, C]: float64 [N, M]."""
    return _distance(to_points(images), to_points(others))


def find_medoid(images: np.ndarray) -> int:
    """Index of the picture with the least summed distance to the others; uint8 [N, H, W, C]."""
    return int(rms_distance(images, images).sum(1).argmin())


def to_points(images: np.ndarray) -> np.ndarray:
    """uint8 [N, ...] as float64 [N, D] in [0, 1], scaled so that distances are root mean squared differences."""
    flat = np.asarray(images).reshape(len(images), -1)
    return flat / (255 * flat.shape[1] ** 0.5)


@dataclass(frozen=True)
class Clusters:
    """Two centres, float64 [2, D] as of `to_points`; the first is that of memorized pictures."""

    centres: np.ndarray

    def memorized(self, images: np.ndarray) -> np.ndarray:
        """Whether each picture is nearer to the first centre, bool [N]."""
        distances = _distance(to_points(images), self.centres)
        return distances[:, 0] < distances[:, 1]

    @property
    def centre_distance(self) -> float:
        """Between the centres, a root mean squared difference of pixels in [0, 1]."""
        return float(_distance(self.centres[:1], self.centres[1:])[0, 0])


def cluster(images: np.ndarray, reference: np.ndarray) -> Clusters | str:
    """2-means of pictures [N, H, W, C] with a reference [H, W, C], or why they cannot be split."""
    from scipy.cluster.vq import ClusterError, kmeans2

    points = to_points(images)
    known = to_points(reference[None])
    farthest = _distance(points, known)[:, 0].argmax()
    start = np.stack([known[0], points[farthest]])
    try:
        centres, _ = kmeans2(points, start, iter=100, minit="matrix", missing="raise")
    except ClusterError:
        return "all pictures are alike: 2-means leaves a cluster empty"
    clusters = Clusters(centres[_distance(centres, known)[:, 0].argsort()])
    if clusters.centre_distance < COPY:
        apart = f"{clusters.centre_distance:.3f}"
        return f"all pictures are alike: the centres of 2-means are {apart} apart, a copy's distance"
    return clusters


def shorten(prompt: str) -> list[str]:
    """The prompt without each of its words in turn; nothing for one word."""
    parts = prompt.split()
    if len(parts) < 2:
        return []
    shorter = [" ".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
    return list(dict.fromkeys(text for text in shorter if text != prompt))


def lengthen(prompt: str, words: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
    """The prompt with a word put in, `count` times, each place in turn; repeated ones are left out."""
    parts = prompt.split()
    drawn = torch.randint(len(words), (count,), generator=generator).tolist()
    longer = []
    for i, word in enumerate(drawn):
        place = i % (len(parts) + 1)
        longer.append(" ".join([*parts[:place], words[word], *parts[place:]]))
    return list(dict.fromkeys(longer))


def choose_share(shares: Sequence[float], share_range: tuple[float, float]) -> int | None:
    """Index of the share nearest the middle of the range, the first of equals; None when all lie outside."""
    low, high = share_range
    middle = sum(share_range) / 2
    inside = [i for i, share in enumerate(shares) if low <= share <= high]
    return min(inside, key=lambda i: abs(shares[i] - middle), default=None)


def rank_flagged(scores: np.ndarray, threshold: float) -> list[int]:
    """Indices of the scores [N] at or above the threshold, the highest first, the first of equals."""
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order if scores[i] >= threshold]


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(a, b)
