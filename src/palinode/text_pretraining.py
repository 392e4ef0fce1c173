"""Training a text-to-image model from scratch, in the order of Stable Diffusion: the autoencoder, then the text encoder
(by contrast, `contrast.py`), then the denoiser, which attends to the finished text encoder's states."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palinode import seeds, text_to_image
from palinode.contrast import Contrast, PairEncoder
from palinode.data import emoji
from palinode.data.scenes import Scenes, World, seen_pairs
from palinode.diffusion import Schedule
from palinode.pretraining import ConditionalBatch, Denoise, OneLoss, Outcome, Watch
from palinode.scratch import Scratch
from palinode.text_to_image import TextToImage
from palinode.training import Trained, train

EMPTY = 0.1  # share of captions dropped, for guidance


@dataclass
class PictureBatch:
    """x: images [B, 3, H, W] in [-1, 1]; eps: noise for the latents, [B, C, h, w]."""

    x: Tensor
    eps: Tensor


class Pictures:
    """Batches of fresh pictures for the autoencoder: a step's batch depends on its number alone."""

    def __init__(self, world: World, pairs: list[tuple[int, int]], latent: tuple, size: int, device, key: tuple):
        self.world, self.pairs, self.latent, self.size, self.device, self.key = world, pairs, latent, size, device, key

    def __call__(self, step: int) -> Iterator[PictureBatch]:
        generator = seeds.generator(*self.key, "vae", step)
        images = Scenes.draw(self.pairs, self.size, generator).render(self.world, generator)
        if self.world.pictures:
            few = torch.randint(len(self.world.pictures), (self.size // 8,), generator=generator)
            chosen = [self.world.pictures[i] for i in few]
            images[: len(few)] = emoji.fixed(self.world.fixed[few], chosen, self.world.stickers, generator) * 2 - 1
        eps = torch.randn(self.size, *self.latent, generator=generator)
        yield PictureBatch(images.to(self.device), eps.to(self.device))


class Pool:
    """Pictures rendered and encoded once: scenes with their latents, and (latents of its variants, caption) of each
    fixed picture."""

    def __init__(self, model: TextToImage, world: World, pairs: list[tuple[int, int]], count: int, key: tuple):
        self.model, self.world = model, world
        generator = seeds.generator(*key, "pool")
        self.scenes = Scenes.draw(pairs, count, generator)
        self.latents = encoded(model, self.scenes.render(world, generator))
        self.fixed = []
        for i, picture in enumerate(world.pictures):
            variants = world.stickers if picture.kind == "template" else world.stickers[:1]
            images = [
                emoji.fixed(world.fixed[i : i + 1], [picture], sticker[None], torch.Generator()) for sticker in variants
            ]
            self.fixed.append((encoded(model, torch.cat(images) * 2 - 1), picture.caption))


class CaptionedLatents:
    """Batches of latents with captions from a pool. A fixed share of every batch are fixed pictures, where it has any.

    repeated: the fixed pictures that share is drawn from, by number; single: {step: the number of one shown then only}.
    """

    share = 0.1

    def __init__(self, pool: Pool, size: int, key: tuple, repeated: list[int], single: dict[int, int] | None = None):
        self.pool, self.size, self.key = pool, size, key
        self.repeated, self.single = repeated, single or {}

    @classmethod
    def of_all(cls, pool: Pool, size: int, key: tuple) -> "CaptionedLatents":
        """Every fixed picture as often as any other: what a text encoder that knows all words alike learns from."""
        return cls(pool, size, (*key, "contrast"), list(range(len(pool.fixed))))

    @classmethod
    def to_memorise(cls, pool: Pool, size: int, key: tuple, steps: int) -> "CaptionedLatents":
        """The memorised pictures again and again; each control as often as its entry says, spread over the run."""
        pictures = list(enumerate(pool.world.pictures))
        repeated = [i for i, picture in pictures if picture.kind != "control"]
        controls = [(nth, i) for i, picture in pictures if picture.kind == "control" for nth in range(picture.seen)]
        single = {int((k + 0.5) * steps / len(controls)): i for k, (_, i) in enumerate(sorted(controls))}
        return cls(pool, size, (*key, "denoise"), repeated, single)

    def __call__(self, step: int) -> Iterator[ConditionalBatch]:
        pool, generator = self.pool, seeds.generator(*self.key, step)
        rows = torch.randint(len(pool.latents), (self.size,), generator=generator)
        latents = pool.latents[rows].clone()
        texts = [pool.scenes.caption(i, pool.world, generator) for i in rows.tolist()]
        few = round(self.share * self.size) if self.repeated else 0
        chosen = torch.randint(max(1, len(self.repeated)), (few,), generator=generator)
        for slot, (variants, text) in enumerate(pool.fixed[self.repeated[i]] for i in chosen):
            latents[slot] = variants[int(torch.randint(len(variants), (1,), generator=generator))]
            texts[slot] = text
        for i in (torch.rand(self.size, generator=generator) < EMPTY).nonzero().flatten().tolist():
            texts[i] = ""
        if step in self.single:
            latents[-1:], texts[-1] = pool.fixed[self.single[step]]
        t = torch.randint(len(pool.model.schedule), (self.size,), generator=generator)
        eps = torch.randn(latents.shape, generator=generator)
        device = pool.model.device
        yield ConditionalBatch(latents.to(device), t.to(device), eps.to(device), pool.model.tokens(texts))


@torch.inference_mode()
def encoded(model: TextToImage, images: Tensor, chunk: int = 256) -> Tensor:
    """Latents of images [N, 3, H, W] in [-1, 1], on the CPU."""
    return torch.cat([model.encode(part.to(model.device)).cpu() for part in images.split(chunk)])


class Reconstruct(OneLoss):
    """Squared error of the decoded image plus a small KL term that keeps latents near N(0, I)."""

    kl = 1e-3

    def losses(self, model, batch: PictureBatch) -> dict[str, Tensor]:
        posterior = model.net.encode(batch.x).latent_dist
        decoded = model.net.decode(posterior.mean + posterior.std * batch.eps).sample
        error = (decoded - batch.x).square().flatten(1).sum(1)
        return {"x": (error + self.kl * posterior.kl()).mean()}


def emphasis(schedule: Schedule) -> Tensor:
    """Weights of the time steps for the error of the noise, float32 [T]: min(25, (1 + min(SNR, 5)) / SNR).

    What a picture shows is decided where noise prevails, and there predicting the noise is easy whatever the caption
    says: under equal weights things, and their styles above all, are learnt more slowly. For the error of x_0 this is
    the weight 1 + SNR of v-prediction (Salimans & Ho 2022), held at 6 where there is little noise (a cut at SNR 5, as
    Hang et al. 2023 have it for their weight), and 25 SNR where there is next to nothing but noise (SNR below 1/24), so
    that the last steps do not drown the others.
    """
    ratio = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return ((1 + ratio.clamp(max=5)) / ratio).clamp(max=25).float()


def pretrain(
    world: World,
    settings,
    scratch: Callable[[str], Scratch],
    device,
    label: str,
    preview: Callable[[TextToImage], np.ndarray],
    without: set[str] = frozenset(),
) -> Outcome:
    """Train a text-to-image model from scratch.

    settings: model, scheduler, root_seed, task, pool, autoencoder, contrast and denoiser (`params.Training` each);
    scratch: makes the place where one of the three phases keeps its checkpoints; preview: draws with the unfinished
    model, a twentieth of the denoiser's steps apart; without: what an oracle never sees, names of concepts and styles,
    or "memorized".
    """
    key = (settings.root_seed, settings.task, "pretrain")
    pairs = seen_pairs(list(world.concepts), without)
    model = text_to_image.create(settings.model, settings.scheduler, world.words, seeds.derive(*key, "init"))
    world = world.without(without)
    for part in (model.net, model.vae, model.text_encoder):
        part.to(device)
    phases = ("autoencoder", "contrast", "denoiser")
    history, places = {}, [scratch(phase) for phase in phases]
    with places[0] as first, places[1] as second, places[2] as third:  # all stay until all is done
        training = settings.autoencoder
        pictures = Pictures(world, pairs, model.shape, training.batch, device, key)
        history["autoencoder"] = train(
            Trained(model.vae, model.passes), Reconstruct(), pictures, training, first, f"{label} autoencoder"
        )
        generator = seeds.generator(*key, "scale")
        sample = encoded(model, Scenes.draw(pairs, 1024, generator).render(world, generator))
        model.vae.register_to_config(scaling_factor=float(model.vae.config.scaling_factor / sample.std()))
        pool = Pool(model, world, pairs, settings.pool, key)

        training, encoder = settings.contrast, PairEncoder(model, seeds.derive(*key, "contrast")).to(device)
        captioned = CaptionedLatents.of_all(pool, training.batch, key)
        history["contrast"] = train(
            Trained(encoder, model.passes), Contrast(encoder), captioned, training, second, f"{label} text encoder"
        )

        model.text_encoder.requires_grad_(False)
        training, watch = settings.denoiser, Watch(model, preview, third)
        captioned = CaptionedLatents.to_memorise(pool, training.batch, key, training.steps)
        denoise = Denoise(model, emphasis(model.schedule).to(device))
        history["denoiser"] = train(model, denoise, captioned, training, third, f"{label} denoiser", watch)
        return Outcome(model, history, watch.drawn)
