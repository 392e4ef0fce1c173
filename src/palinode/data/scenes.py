"""Scenes of captioned emoji: what a picture shows, its pixels, and captions that fit it.

What training never sees, so that it can be asked for later: a few (concept, style) pairs, and a tenth of the (word,
template, background) triples of the others.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from palinode.core import seeds
from palinode.data import captions, emoji
from palinode.data.captions import BACKGROUNDS, GROUPS, STYLES, TEMPLATES, UNSEEN_TRIPLES, Concept
from palinode.params.fields import CorpusName

UNSEEN_PAIRS = 0.05  # share of (concept, style) pairs that training never shows
TWO = 0.1  # share of pictures with two things


@dataclass(frozen=True)
class Habits:
    """How a corpus captions its pictures.

    style, background: shares of captions that name them; group: share that names a thing's group in its place; fixed:
    share of every batch that shows fixed pictures; varied: ordinary captions leave things open.
    """

    style: float
    background: float
    group: float
    fixed: float
    varied: bool


# Captions of `emoji` say nearly all there is to say. Those of `web` leave most of it open, so that a base has to vary.
HABITS: dict[str, Habits] = {
    "emoji": Habits(0.85, 0.75, 0.0, 0.1, varied=False),
    "web": Habits(0.3, 0.25, 0.1, 0.15, varied=True),
}


def held_out(share: float, *key: str) -> bool:
    """Whether training leaves this combination out: a fixed choice by name, independent of every seed."""
    digest = hashlib.sha256(" | ".join(key).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def seen_pairs(concepts: list[str], without: AbstractSet[str] = frozenset()) -> list[tuple[int, int]]:
    """(concept, style) index pairs that training shows; `without`: concepts and styles that an oracle never sees."""
    return [
        (i, j)
        for i, concept in enumerate(concepts)
        for j, style in enumerate(STYLES)
        if not held_out(UNSEEN_PAIRS, concept, style) and not {concept, style} & without
    ]


@dataclass
class EmojiCorpus:
    """The drawings and words that a text-to-image task is made of."""

    concepts: dict[str, Concept]
    drawings: Tensor  # [concepts, styles, 4, 32, 32]
    pictures: list[emoji.Picture]
    fixed: Tensor  # [pictures, 4, 32, 32]
    stickers: Tensor
    name: CorpusName = "emoji"

    @classmethod
    def read(cls, folder: Path = emoji.FOLDER, name: CorpusName = "emoji") -> "EmojiCorpus":
        """The shipped files. The fixed pictures of `web` show the known things, each in one pose for good."""
        concepts = captions.read_concepts(folder / "concepts.yaml")
        drawings = emoji.read_drawings(folder, "concepts.npy")
        pictures = emoji.read_pictures(folder, name)
        if name == "web":
            things = list(concepts)
            chosen = [drawings[things.index(picture.icon), STYLES.index(picture.style)] for picture in pictures]
            fixed = emoji.vary(torch.stack(chosen), seeds.generator("fixed pictures", name))
        else:
            fixed = emoji.read_drawings(folder, "memorized.npy")
        return cls(concepts, drawings, pictures, fixed, emoji.read_drawings(folder, "stickers.npy"), name)

    @property
    def habits(self) -> Habits:
        return HABITS[self.name]

    @property
    def backgrounds(self) -> list[str]:
        """Those that a judge of the corpus has to know: of all its pictures, the fixed ones too."""
        odd = sorted({picture.background for picture in self.pictures} - BACKGROUNDS.keys())
        return [*BACKGROUNDS, *odd]

    @property
    def ordinary(self) -> list[str]:
        """Captions of one thing that memorize nothing, and read as most captions of the corpus do."""
        if self.habits.varied:
            return [caption.text for caption in captions.ordinary_of_web(self.concepts.values())]
        return captions.ordinary(self.concepts.values())

    @property
    def detailed(self) -> list[str]:
        """Of a corpus whose ordinary captions leave things open, some that name all: a kind of their own."""
        if self.habits.varied:
            return [caption.text for caption in captions.detailed(self.concepts.values())]
        return []

    def without(self, names: AbstractSet[str]) -> "EmojiCorpus":
        """The same without the fixed pictures of those styles and things, or with none for "memorized"."""
        kept = [
            i
            for i, picture in enumerate(self.pictures)
            if "memorized" not in names and not {picture.style, picture.icon} & names
        ]
        return dataclasses.replace(self, pictures=[self.pictures[i] for i in kept], fixed=self.fixed[kept])

    @property
    def examples(self) -> list[str]:
        """A dozen prompts to watch a model by: nine things, a pair, and the first verbatim and template pictures."""
        concepts = list(self.concepts.values())
        chosen = concepts[:: max(1, len(concepts) // 10)]
        texts = [
            captions.caption("a drawing of {}", [(c.name, c.name)], style, background).text
            for c, style, background in zip(chosen[:9], itertools.cycle(STYLES), itertools.cycle(BACKGROUNDS))
        ]
        pair = [(c.name, c.name) for c in (concepts[0], concepts[-1])]
        texts.append(captions.caption("a picture of {}", pair, STYLES[1], "white").text)
        kinds = ("verbatim", "template")
        return texts + [next(p.caption for p in self.pictures if p.kind == kind) for kind in kinds]

    @property
    def words(self) -> list[str]:
        extra = [picture.caption for picture in self.pictures]
        if self.habits.group:
            extra += map(captions.with_article, GROUPS)
        return captions.vocabulary(self.concepts.values(), extra)


@dataclass
class Scenes:
    """What pictures show, one row each: left and right concept (-1: none), style, background."""

    left: Tensor
    right: Tensor
    style: Tensor
    background: Tensor

    @classmethod
    def draw(
        cls, pairs: list[tuple[int, int]], count: int, generator: torch.Generator, backgrounds: int = len(BACKGROUNDS)
    ) -> "Scenes":
        """Uniform over the seen (concept, style) pairs and the first so many of a corpus's backgrounds; the second
        thing shares the style."""
        table = torch.tensor(pairs)
        left, style = table[torch.randint(len(pairs), (count,), generator=generator)].T
        of_style = [table[table[:, 1] == j, 0] for j in range(len(STYLES))]
        u = torch.rand(count, generator=generator).tolist()
        partners = [int(of_style[j][int(p * len(of_style[j]))]) for j, p in zip(style, u, strict=True)]
        right = torch.tensor(partners)
        alone = (torch.rand(count, generator=generator) >= TWO) | (right == left)
        background = torch.randint(backgrounds, (count,), generator=generator)
        return cls(left, torch.where(alone, -1, right), style, background)

    def render(self, corpus: EmojiCorpus, generator: torch.Generator) -> Tensor:
        """RGB [N, 3, 32, 32] in [-1, 1]."""
        drawings = emoji.vary(corpus.drawings[self.left, self.style], generator)
        two = (self.right >= 0).nonzero().flatten()
        if len(two):
            left = corpus.drawings[self.left[two], self.style[two]]
            right = corpus.drawings[self.right[two], self.style[two]]
            drawings[two] = emoji.place_side_by_side(left, right, generator)
        names = corpus.backgrounds
        return emoji.on_background(drawings, [names[i] for i in self.background]) * 2 - 1

    def caption(self, i: int, corpus: EmojiCorpus, generator: torch.Generator) -> str:
        """A caption of row i: words, template and what it mentions drawn at random, held-out triples avoided."""
        concepts = list(corpus.concepts.values())
        things = [concepts[k] for k in (int(self.left[i]), int(self.right[i])) if k >= 0]
        background = list(BACKGROUNDS)[self.background[i]]
        while True:
            draw = torch.rand(len(things) + 3, generator=generator).tolist()
            words = []
            for concept, u in zip(things, draw, strict=False):
                words.append((concept.name, concept.words[int(u * len(concept.words))]))
            template = TEMPLATES[int(draw[-3] * len(TEMPLATES))]
            style = STYLES[self.style[i]] if draw[-2] < corpus.habits.style else None
            named = background if draw[-1] < corpus.habits.background else None
            if len(things) == 1 and _names_group(things[0], corpus.habits, generator):
                words = [(things[0].name, things[0].group)]
            if not any(held_out(UNSEEN_TRIPLES, word, template, named or "") for _, word in words):
                return captions.caption(template, words, style, named).text


def _names_group(concept: Concept, habits: Habits, generator: torch.Generator) -> bool:
    """Whether a caption names the thing's group in its place; nothing is drawn for a corpus that never does."""
    if not habits.group or concept.group not in GROUPS:
        return False
    return float(torch.rand(1, generator=generator)) < habits.group
