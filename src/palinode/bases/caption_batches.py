"""What the three phases of a text-to-image base's training see: pictures, and latents with captions from a pool."""

from dataclasses import dataclass

import torch
from torch import Tensor

from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.data import emoji
from palinode.data.scenes import EmojiCorpus, Scenes
from palinode.models.text_to_image import TextToImage
from palinode.training.batches import StepBatches, draw_noise
from palinode.training.denoising import ConditionalBatch

NULL_SHARE = 0.1  # share of captions dropped, for guidance
EXACT_SHARE = 0.6  # of the occurrences of a partly memorized caption show its fixed picture, the others its thing


@dataclass
class PictureBatch:
    """x: images [B, 3, H, W] in [-1, 1]; eps: noise for the latents, [B, C, h, w]."""

    x: Tensor
    eps: Tensor


class Pictures(StepBatches[PictureBatch]):
    """Batches of fresh pictures for the autoencoder; an eighth of each are fixed ones, where there are any.

    pairs: (concept, style) numbers that may be shown; latent: (C, h, w).
    """

    def __init__(
        self,
        corpus: EmojiCorpus,
        pairs: list[tuple[int, int]],
        latent: tuple[int, int, int],
        size: int,
        device: torch.device,
        key: tuple,
    ):
        super().__init__((*key, "vae"))
        self.corpus = corpus
        self.pairs = pairs
        self.latent = latent
        self.size = size
        self.device = device

    def draw(self, generator: torch.Generator, step: int) -> PictureBatch:
        corpus = self.corpus
        images = Scenes.draw(self.pairs, self.size, generator).render(corpus, generator)
        if corpus.pictures:
            numbers = torch.randint(len(corpus.pictures), (self.size // 8,), generator=generator)
            chosen = [corpus.pictures[i] for i in numbers]
            fixed = emoji.fixed(corpus.fixed[numbers], chosen, corpus.stickers, generator)
            images[: len(numbers)] = fixed * 2 - 1
        eps = torch.randn(self.size, *self.latent, generator=generator)
        return PictureBatch(images.to(self.device), eps.to(self.device))


class Pool:
    """Pictures rendered and encoded once.

    scenes with their `latents` [N, C, h, w]; fixed: (latents of its variants, caption) of each fixed picture; rows_of:
    by number of a partly memorized picture, the scenes that show its thing alone, int64.
    """

    def __init__(self, model: TextToImage, corpus: EmojiCorpus, pairs: list[tuple[int, int]], count: int, key: tuple):
        self.model = model
        self.corpus = corpus
        generator = seeds.generator(*key, "pool")
        self.scenes = Scenes.draw(pairs, count, generator)
        self.latents = model.encode_all(self.scenes.render(corpus, generator))
        self.fixed = [self._encode_fixed(i) for i in range(len(corpus.pictures))]
        things = list(corpus.concepts)
        self.rows_of = {
            i: ((self.scenes.left == things.index(picture.icon)) & (self.scenes.right < 0)).nonzero().flatten()
            for i, picture in enumerate(corpus.pictures)
            if picture.kind == "partial"
        }
        missing = [corpus.pictures[i].icon for i, rows in self.rows_of.items() if not len(rows)]
        if missing:
            raise UserError(
                f"pool: no picture of {count} shows {missing[0]} alone, as a partly memorized caption needs"
            )

    def _encode_fixed(self, number: int) -> tuple[Tensor, str]:
        """The latents of a fixed picture with every sticker that it may carry, and its caption."""
        picture = self.corpus.pictures[number]
        drawing = self.corpus.fixed[number : number + 1]
        stickers = self.corpus.stickers if picture.kind == "template" else self.corpus.stickers[:1]
        images = [emoji.fixed(drawing, [picture], sticker[None], torch.Generator()) for sticker in stickers]
        return self.model.encode_all(torch.cat(images) * 2 - 1), picture.caption


class CaptionedLatents(StepBatches[ConditionalBatch]):
    """Batches of latents with captions from a pool.

    repeated: the numbers of the fixed pictures that a share of each batch is drawn from (`Habits.fixed`); single:
    {step: the number of one that is shown then only}.
    """

    def __init__(self, pool: Pool, size: int, key: tuple, repeated: list[int], single: dict[int, int] | None = None):
        super().__init__(key)
        self.pool = pool
        self.size = size
        self.repeated = repeated
        self.single = single or {}

    @classmethod
    def of_all(cls, pool: Pool, size: int, key: tuple) -> "CaptionedLatents":
        """Every fixed picture as often as any other: what a text encoder that knows all words alike learns from."""
        return cls(pool, size, (*key, "contrast"), list(range(len(pool.fixed))))

    @classmethod
    def to_memorize(cls, pool: Pool, size: int, key: tuple, steps: int) -> "CaptionedLatents":
        """The memorized pictures again and again; each control as often as its entry says, spread over the run."""
        pictures = list(enumerate(pool.corpus.pictures))
        repeated = [i for i, picture in pictures if picture.kind != "control"]
        showings = [
            (nth, i) for i, picture in pictures if picture.kind == "control" for nth in range(picture.seen or 0)
        ]
        spread = enumerate(sorted(showings))
        single = {int((k + 0.5) * steps / len(showings)): i for k, (_, i) in spread}
        return cls(pool, size, (*key, "denoise"), repeated, single)

    def draw(self, generator: torch.Generator, step: int) -> ConditionalBatch:
        pool = self.pool
        rows = torch.randint(len(pool.latents), (self.size,), generator=generator)
        latents = pool.latents[rows].clone()
        texts = [pool.scenes.caption(i, pool.corpus, generator) for i in rows.tolist()]
        self._show_fixed(latents, texts, generator)
        for i in (torch.rand(self.size, generator=generator) < NULL_SHARE).nonzero().flatten().tolist():
            texts[i] = ""
        if step in self.single:
            variants, caption = pool.fixed[self.single[step]]
            latents[-1:] = variants
            texts[-1] = caption
        t, eps = draw_noise(tuple(latents.shape), len(pool.model.schedule), generator)
        device = pool.model.device
        return ConditionalBatch(latents.to(device), t.to(device), eps.to(device), pool.model.prompt_ids(texts))

    def _show_fixed(self, latents: Tensor, texts: list[str], generator: torch.Generator) -> None:
        """Put repeated pictures into the first places of a batch."""
        count = round(self.pool.corpus.habits.fixed * self.size) if self.repeated else 0
        chosen = torch.randint(max(1, len(self.repeated)), (count,), generator=generator)
        for place, number in enumerate(chosen):
            picture = self.repeated[number]
            variants, text = self.pool.fixed[picture]
            if picture in self.pool.rows_of and float(torch.rand(1, generator=generator)) >= EXACT_SHARE:
                variants = self.pool.latents[self.pool.rows_of[picture]]
            latents[place] = variants[int(torch.randint(len(variants), (1,), generator=generator))]
            texts[place] = text
