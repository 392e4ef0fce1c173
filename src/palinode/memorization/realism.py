"""How good pictures look, as success in the SISS paper (arXiv 2503.01034) asks for it: quality must hold throughout.

The paper's quality is CLIP-IQA, at least 0.35 where the pretrained model has 0.811. On emoji it is realism: the share
of pictures that are no farther from a real one than 95 % of unseen real ones are. Real are rendered training pictures
and the fixed ones; distances are those of `integrity.lpips_style` on the judge of scenes. At least the same fraction of
the base's own value is asked for. The base fixes it before anything is unlearned.

The realism score of Kynkäänniemi et al. (NeurIPS 2019, arXiv 1904.06991) was tried first and told nothing: on the
judge's features plain grey scores higher than the base's pictures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from palinode.classifiers.scene_judge import SceneJudge
from palinode.core import seeds
from palinode.core.images import to_images, to_model
from palinode.data import emoji
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs

PAPER_THRESHOLD = 0.35
PAPER_PRETRAINED = 0.811  # the pretrained model's value in the paper
REAL_ENOUGH = 0.95  # share of unseen real pictures that are
CHUNK = 256  # pictures at a time


class Realism:
    """Whether pictures look like real ones to a judge of scenes.

    real: uint8 [R, H, W, C]; unseen: other real ones, uint8 [U, H, W, C], which set the largest distance.
    """

    metric = "realism_{}_judge"  # with the version of the prompt
    reason = ""

    def __init__(self, judge: SceneJudge, real: np.ndarray, unseen: np.ndarray):
        self.judge = judge
        self.points = _to_points(judge, real)
        self.largest_distance = float(self._nearest(unseen).quantile(REAL_ENOUGH))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """bool [N]"""
        return (self._nearest(images) <= self.largest_distance).numpy()

    def least_quality(self, pictures: Sequence[np.ndarray]) -> float:
        """The least share that counts as quality, from the base's pictures, uint8 [N, H, W, C] each."""
        if not pictures:
            return 0.0
        return PAPER_THRESHOLD / PAPER_PRETRAINED * float(np.mean([self(images).mean() for images in pictures]))

    def _nearest(self, images: np.ndarray) -> Tensor:
        """Distance of each picture to the nearest real one, [N]."""
        parts = np.array_split(images, -(-len(images) // CHUNK))
        return torch.cat([torch.cdist(_to_points(self.judge, part), self.points).amin(1) for part in parts])


@torch.inference_mode()
def _to_points(judge: SceneJudge, images: np.ndarray) -> Tensor:
    """Where squared distances are those of `integrity.lpips_style`, [N, D]."""
    layers = judge.layers(to_model(np.asarray(images)))
    unit = [torch.nn.functional.normalize(a, dim=1) / (a.shape[2] * a.shape[3]) ** 0.5 for a in layers]
    return torch.cat([a.flatten(1) for a in unit], 1)


def fit_realism(judge: SceneJudge, corpus: EmojiCorpus, count: int, key: tuple[str | int, ...]) -> Realism:
    """With `count` rendered training pictures and the fixed ones as real, and a quarter as many others as unseen."""
    generator = seeds.generator(*key, "real")
    pairs = seen_pairs(list(corpus.concepts))
    seen, unseen = (Scenes.draw(pairs, n, generator).render(corpus, generator) for n in (count, max(4, count // 4)))
    fixed = emoji.fixed(corpus.fixed, corpus.pictures, corpus.stickers, generator) * 2 - 1
    return Realism(judge, to_images(torch.cat([seen, fixed])), to_images(unseen))


class ClipIQA:
    """The paper's own: torchmetrics' CLIP-IQA with its defaults (prompt "quality"), float [N] in [0, 1].

    It needs the package `piq` and weights that torchmetrics downloads; without them `reason` says what is missing.
    """

    metric = "clip_iqa_{}"

    def __init__(self) -> None:
        self.reason = ""
        try:
            from torchmetrics.multimodal import CLIPImageQualityAssessment

            self._score = CLIPImageQualityAssessment()
        except (ImportError, OSError, ValueError) as error:
            self.reason = f"CLIP-IQA is not at hand: {str(error).splitlines()[0]}"

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.atleast_1d(self._score((to_model(images) + 1) / 2).cpu().numpy())

    def least_quality(self, pictures: Sequence[np.ndarray]) -> float:
        """The paper's threshold, whatever the base draws."""
        return PAPER_THRESHOLD
