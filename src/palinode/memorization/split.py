"""Pictures of a memorised prompt, split into what to forget and what to keep (SISS, section on Stable Diffusion).

The paper edits each prompt by hand until its pictures vary, draws 128, and labels them by k-means on pixels. Two of its
steps are not published, and are rules here:

- *The modified prompt.* First the prompt without its first word, without its second, and so on. If none of these
  serves, the prompt with a word put in, at each place in turn: before the first word, before the second, ..., after the
  last, and again from the front; the words are drawn from those the model knows. Of either group the one wins whose
  share of copies, among a few pictures each, lies nearest the middle of the wanted band, the first of equals; one
  outside the band cannot win.
  A base that draws one picture a prompt has no such edit: its copies are all or none, and those in between are one
  picture that straddles the threshold. The rule "unprompted" is this project's, for such bases: half of the pictures
  come from the original prompt and half from the empty one, which takes the modified prompt's place, and training tells
  the original prompt of both. What is forgotten is then the copy, and what the prompt shall give is what the model
  draws when it is told nothing.
- *The memorised cluster.* 2-means starts from the reference and the picture farthest from it, so that nothing is drawn;
  the cluster whose centre ends nearest the reference is the memorised one. The reference is the medoid of pictures
  drawn under the original prompt.
"""

from dataclasses import dataclass

import numpy as np
import torch

from palinode.text_gate import COPY


def far(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean squared differences of pixels in [0, 1], uint8 [N, H, W, C] and [M, H, W, C]: float64 [N, M]."""
    return _distance(pixels(images), pixels(others))


def medoid(images: np.ndarray) -> int:
    """Index of the picture with the least summed distance to the others; uint8 [N, H, W, C]."""
    return int(far(images, images).sum(1).argmin())


def pixels(images: np.ndarray) -> np.ndarray:
    """uint8 [N, ...] as float64 [N, D] in [0, 1], scaled so that distances are root mean squared differences."""
    flat = np.asarray(images).reshape(len(images), -1)
    return flat / (255 * flat.shape[1] ** 0.5)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(a, b)


@dataclass(frozen=True)
class Clusters:
    """Two centres, float64 [2, D] as of `pixels`; the first is that of memorised pictures."""

    centres: np.ndarray

    def memorised(self, images: np.ndarray) -> np.ndarray:
        """Whether each picture is nearer to the first centre, bool [N]."""
        far = _distance(pixels(images), self.centres)
        return far[:, 0] < far[:, 1]

    @property
    def apart(self) -> float:
        """Distance between the centres, a root mean squared difference of pixels in [0, 1]."""
        return float(_distance(self.centres[:1], self.centres[1:])[0, 0])


def two_means(images: np.ndarray, reference: np.ndarray) -> Clusters | str:
    """2-means of pictures [N, H, W, C] with a reference [H, W, C], or why they cannot be split."""
    from scipy.cluster.vq import ClusterError, kmeans2

    points, known = pixels(images), pixels(reference[None])
    farthest = _distance(points, known)[:, 0].argmax()
    try:
        centres, _ = kmeans2(points, np.stack([known[0], points[farthest]]), iter=100, minit="matrix", missing="raise")
    except ClusterError:
        return "all pictures are alike: 2-means leaves a cluster empty"
    found = Clusters(centres[_distance(centres, known)[:, 0].argsort()])
    if found.apart < COPY:
        return f"all pictures are alike: the centres of 2-means are {found.apart:.3f} apart, a copy's distance"
    return found


def shortened(prompt: str) -> list[str]:
    """The prompt without each of its words in turn; nothing for one word."""
    parts = prompt.split()
    found = [" ".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts))] if len(parts) > 1 else []
    return list(dict.fromkeys(text for text in found if text != prompt))


def lengthened(prompt: str, words: list[str], count: int, generator: torch.Generator) -> list[str]:
    """The prompt with a word put in, `count` times, each place in turn; repeated ones are left out."""
    parts, found = prompt.split(), []
    drawn = torch.randint(len(words), (count,), generator=generator).tolist()
    for i, word in enumerate(drawn):
        place = i % (len(parts) + 1)
        found.append(" ".join([*parts[:place], words[word], *parts[place:]]))
    return list(dict.fromkeys(found))


def best(shares: list[float], band: tuple[float, float]) -> int | None:
    """Index of the share nearest the middle of the band, the first of equals; None when all lie outside."""
    inside = [i for i, share in enumerate(shares) if band[0] <= share <= band[1]]
    return min(inside, key=lambda i: abs(shares[i] - sum(band) / 2), default=None)


def flagged(scores: np.ndarray, threshold: float) -> list[int]:
    """Indices of the scores [N] at or above the threshold, the highest first, the first of equals."""
    order = np.argsort(-scores, kind="stable")
    return [int(i) for i in order if scores[i] >= threshold]
