"""How good pictures look, as the SISS paper's success asks for it: quality must hold at every step looked at.

The paper's quality is CLIP-IQA, at least 0.35 where the pretrained model has 0.811. On emoji it is `realism`: the share
of pictures that are no farther from a real one than 95 % of unseen real ones are; real are rendered training pictures
and the fixed ones, distances those of `integrity.lpips_style` on the judge of scenes. At least the same fraction of the
base's own value is asked for, fixed by the base before anything is unlearned. The realism score of Kynkaanniemi et al.
(2019) was tried first and told nothing: on the judge's features plain grey has a higher one than the base's pictures.
"""

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.data import emoji
from palinode.data.scenes import Scenes, World, seen_pairs
from palinode.models import to_images, to_model
from palinode.scene_judge import SceneJudge

PAPER, PRETRAINED = 0.35, 0.811  # the paper's threshold, and the pretrained model's value
UNSEEN = 0.95  # share of unseen real pictures that are real enough


class Realism:
    """Whether pictures look like real ones to a judge of scenes; real: uint8 [R, H, W, C]; unseen: others, [U, ...]."""

    metric = "realism_{}_judge"  # with the version of the prompt
    reason = ""

    def __init__(self, judge: SceneJudge, real: np.ndarray, unseen: np.ndarray):
        self.judge, self.known = judge, self._points(judge, real)
        self.limit = float(self._nearest(unseen).quantile(UNSEEN))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """bool [N]"""
        return (self._nearest(images) <= self.limit).numpy()

    def least(self, starts: list[np.ndarray]) -> float:
        """The least share that counts as quality, from the base's pictures, uint8 [N, H, W, C] each."""
        return PAPER / PRETRAINED * float(np.mean([self(images).mean() for images in starts])) if starts else 0.0

    def _nearest(self, images: np.ndarray) -> Tensor:
        return torch.cat([torch.cdist(self._points(self.judge, some), self.known).amin(1)
                          for some in np.array_split(images, -(-len(images) // 256))])  # fmt: skip

    @staticmethod
    @torch.inference_mode()
    def _points(judge: SceneJudge, images: np.ndarray) -> Tensor:
        """Where squared distances are those of `integrity.lpips_style`, [N, D]."""
        layers = judge.layers(to_model(np.asarray(images)))
        unit = (torch.nn.functional.normalize(a, dim=1) / (a.shape[2] * a.shape[3]) ** 0.5 for a in layers)
        return torch.cat([a.flatten(1) for a in unit], 1)


def realism(judge: SceneJudge, world: World, count: int, key: tuple) -> Realism:
    """With `count` rendered training pictures and the fixed ones as real, and a quarter as many others as unseen."""
    generator, pairs = seeds.generator(*key, "real"), seen_pairs(list(world.concepts))
    drawn = [Scenes.draw(pairs, n, generator).render(world, generator) for n in (count, max(4, count // 4))]
    fixed = emoji.fixed(world.fixed, world.pictures, world.stickers, generator) * 2 - 1
    return Realism(judge, to_images(torch.cat([drawn[0], fixed])), to_images(drawn[1]))


class ClipIQA:
    """The paper's own: torchmetrics' CLIP-IQA with its defaults (prompt "quality"), float [N] in [0, 1].

    It needs the package `piq` and weights that torchmetrics downloads; without them `reason` says what is missing.
    """

    metric = "clip_iqa_{}"

    def __init__(self):
        try:
            from torchmetrics.multimodal import CLIPImageQualityAssessment

            self._score, self.reason = CLIPImageQualityAssessment(), ""
        except (ImportError, OSError, ValueError) as error:
            self.reason = f"CLIP-IQA is not at hand: {str(error).splitlines()[0]}"

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.atleast_1d(self._score((to_model(images) + 1) / 2).cpu().numpy())

    def least(self, starts: list[np.ndarray]) -> float:
        """The paper's threshold, whatever the base draws."""
        return PAPER
