"""Labelled pictures that train and test the judge of scenes: things in a style, and pictures of none of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palinode.core import seeds
from palinode.data import emoji
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus, Scenes

NONE_SHARE = 0.3  # of a batch shows none of the things
CROP_SHARE = 0.15  # of a batch shows one half of a picture of two things
HELD = 16  # of the drawings that stand for "none": only in the test stream


@dataclass
class Labelled:
    """Pictures [B, 3, 32, 32] in [-1, 1] with the classes of concept and style."""

    images: Tensor
    concept: Tensor
    style: Tensor


class Stream:
    """Endless labelled pictures; batch number `step` depends on its number and the key alone.

    others: drawings that stand for "none of these", the last HELD of them for `held` streams only; all other streams
    have the rest, and the fixed pictures' drawings where these show no known thing. Their styles take turns, without
    the last (data/emoji/build.py).
    """

    def __init__(
        self, corpus: EmojiCorpus, others: Tensor, size: int, key: tuple[str | int, ...], held: bool = False
    ) -> None:
        self.corpus = corpus
        self.size = size
        self.key = key
        styles = torch.arange(len(others)) % (len(STYLES) - 1)
        if held:
            self.others = others[-HELD:]
            self.other_styles = styles[-HELD:]
        else:
            foreign = [i for i, picture in enumerate(corpus.pictures) if picture.icon not in corpus.concepts]
            fixed = torch.tensor([STYLES.index(corpus.pictures[i].style) for i in foreign], dtype=torch.int64)
            self.others = torch.cat([corpus.fixed[foreign], others[:-HELD]])
            self.other_styles = torch.cat([fixed, styles[:-HELD]])
        self.pairs = [(i, j) for i in range(len(corpus.concepts)) for j in range(len(STYLES))]

    def __call__(self, step: int) -> Labelled:
        """First the pictures of none of the things, then the halves of two, then whole scenes of one thing."""
        generator = seeds.generator(*self.key, step)
        count_none = round(NONE_SHARE * self.size)
        count_crops = round(CROP_SHARE * self.size)
        scenes = Scenes.draw(self.pairs, self.size, generator, len(self.corpus.backgrounds))
        scenes.right[:] = -1
        whole = scenes.render(self.corpus, generator)
        crops = self._draw_crops(scenes, slice(count_none, count_none + count_crops), generator)
        none, none_style = self._draw_none(whole[self.size - count_none :], generator)
        images = torch.cat([none, crops, whole[count_none + count_crops :]])
        concept = scenes.left.clone()
        concept[:count_none] = len(self.corpus.concepts)
        style = torch.cat([none_style, scenes.style[count_none:]])
        return Labelled(_wear(images, generator), concept, style)

    def draw_others(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Other drawings, varied, on some background, and their styles."""
        chosen = torch.randint(len(self.others), (count,), generator=generator)
        return self._place(self.others[chosen], generator), self.other_styles[chosen]

    def _draw_crops(self, scenes: Scenes, rows: slice, generator: torch.Generator) -> Tensor:
        """The left thing of a picture of two, cut out and enlarged, as `halves` does."""
        left = scenes.left[rows]
        style = scenes.style[rows]
        right = left.flip(0)
        drawings = emoji.place_side_by_side(
            self.corpus.drawings[left, style], self.corpus.drawings[right, style], generator
        )
        names = [self.corpus.backgrounds[i] for i in scenes.background[rows]]
        return halves(emoji.on_background(drawings, names) * 2 - 1)[0]

    def _draw_none(self, scenes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures of none of the things, as many as the scenes [N, 3, 32, 32] they are made of, and their styles.

        Two fifths are other drawings. A fifth are each half of one thing and half of another in its style, as a failed
        drawing may be. The rest is in no style: blends of two scenes, coarse colour noise, scenes too blurred to tell.
        """
        count = len(scenes)
        fifth = count // 5
        half_fifth = fifth // 2
        others, other_style = self.draw_others(count - 3 * fifth, generator)
        chimeras, chimera_style = self._draw_chimeras(fifth, generator)
        blends = (scenes[:fifth] + scenes[count - fifth :]) / 2
        noise = _draw_noise(half_fifth, generator)
        blurred = _blur(scenes[: fifth - half_fifth])
        no_style = torch.full((len(blends) + len(noise) + len(blurred),), len(STYLES))
        images = torch.cat([others, chimeras, blends, noise, blurred])
        return images, torch.cat([other_style, chimera_style, no_style])

    def _draw_chimeras(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The left half of one thing beside the right half of another, and the style of both."""
        table = torch.tensor(self.pairs)
        left_thing, style = table[torch.randint(len(table), (count,), generator=generator)].T
        right_thing, _ = table[torch.randint(len(table), (count,), generator=generator)].T
        middle = self.corpus.drawings.shape[-1] // 2
        left = self.corpus.drawings[left_thing, style][..., :middle]
        right = self.corpus.drawings[right_thing, style][..., middle:]
        return self._place(torch.cat([left, right], -1), generator), style

    def _place(self, drawings: Tensor, generator: torch.Generator) -> Tensor:
        """Drawings [B, 4, 32, 32] on some background each, varied."""
        names = self.corpus.backgrounds
        chosen = torch.randint(len(names), (len(drawings),), generator=generator)
        return emoji.on_background(emoji.vary(drawings, generator), [names[i] for i in chosen]) * 2 - 1


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right thing of pictures of two [B, 3, 32, 32], each enlarged to the full size."""
    middle = images[:, :, 8:24]
    left, right = (nn.functional.interpolate(half, scale_factor=2.0, mode="bilinear") for half in middle.split(16, 3))
    return left, right


def _draw_noise(count: int, generator: torch.Generator) -> Tensor:
    """Coarse colour noise."""
    cells = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return nn.functional.interpolate(cells, scale_factor=4.0, mode="bilinear")


def _blur(scenes: Tensor) -> Tensor:
    """So much that nothing can be told."""
    return nn.functional.interpolate(nn.functional.avg_pool2d(scenes, 8), scale_factor=8.0)


def _wear(images: Tensor, generator: torch.Generator) -> Tensor:
    """A third slightly blurred, all slightly noisy: a drawn picture is never as clean as its source."""
    soft = nn.functional.avg_pool2d(nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blurred = torch.rand(len(images), 1, 1, 1, generator=generator) < 1 / 3
    level = torch.rand(len(images), 1, 1, 1, generator=generator) * 0.1
    return torch.where(blurred, soft, images) + level * torch.randn(images.shape, generator=generator)
