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

from palinode.data import captions, emoji
from palinode.data.captions import BACKGROUNDS, STYLES, TEMPLATES, UNSEEN_TRIPLES, Concept

UNSEEN_PAIRS = 0.05  # share of (concept, style) pairs that training never shows
TWO = 0.1  # share of pictures with two things
STYLE_NAMED = 0.85  # share of captions that name it
BACKGROUND_NAMED = 0.75


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

    @classmethod
    def read(cls, folder: Path = emoji.FOLDER) -> "EmojiCorpus":
        """The shipped files."""
        return cls(
            concepts=captions.read_concepts(folder / "concepts.yaml"),
            drawings=emoji.read_drawings(folder, "concepts.npy"),
            pictures=emoji.read_pictures(folder),
            fixed=emoji.read_drawings(folder, "memorized.npy"),
            stickers=emoji.read_drawings(folder, "stickers.npy"),
        )

    def without(self, names: AbstractSet[str]) -> "EmojiCorpus":
        """The same with the fixed pictures of those styles left out, or with none for "memorized"."""
        kept = [i for i, p in enumerate(self.pictures) if p.style not in names and "memorized" not in names]
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
        return captions.vocabulary(self.concepts.values(), [picture.caption for picture in self.pictures])


@dataclass
class Scenes:
    """What pictures show, one row each: left and right concept (-1: none), style, background."""

    left: Tensor
    right: Tensor
    style: Tensor
    background: Tensor

    @classmethod
    def draw(cls, pairs: list[tuple[int, int]], count: int, generator: torch.Generator) -> "Scenes":
        """Uniform over the seen (concept, style) pairs and the backgrounds; the second thing shares the style."""
        table = torch.tensor(pairs)
        left, style = table[torch.randint(len(pairs), (count,), generator=generator)].T
        of_style = [table[table[:, 1] == j, 0] for j in range(len(STYLES))]
        u = torch.rand(count, generator=generator).tolist()
        partners = [int(of_style[j][int(p * len(of_style[j]))]) for j, p in zip(style, u, strict=True)]
        right = torch.tensor(partners)
        alone = (torch.rand(count, generator=generator) >= TWO) | (right == left)
        background = torch.randint(len(BACKGROUNDS), (count,), generator=generator)
        return cls(left, torch.where(alone, -1, right), style, background)

    def render(self, corpus: EmojiCorpus, generator: torch.Generator) -> Tensor:
        """RGB [N, 3, 32, 32] in [-1, 1]."""
        drawings = emoji.vary(corpus.drawings[self.left, self.style], generator)
        two = (self.right >= 0).nonzero().flatten()
        if len(two):
            left = corpus.drawings[self.left[two], self.style[two]]
            right = corpus.drawings[self.right[two], self.style[two]]
            drawings[two] = emoji.place_side_by_side(left, right, generator)
        names = list(BACKGROUNDS)
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
            style = STYLES[self.style[i]] if draw[-2] < STYLE_NAMED else None
            named = background if draw[-1] < BACKGROUND_NAMED else None
            if not any(held_out(UNSEEN_TRIPLES, word, template, named or "") for _, word in words):
                return captions.caption(template, words, style, named).text
