"""Training a text-to-image model from scratch: first the autoencoder, then text encoder and denoiser together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palinode import seeds, text_to_image
from palinode.data import emoji
from palinode.data.scenes import Scenes, World, seen_pairs
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


class CaptionedLatents:
    """Batches of latents with captions, from a pool that is rendered and encoded once.

    A fixed share of every batch are memorised pictures, where the world has any; each control is shown as often as its
    entry says, at steps spread over the run, and always with its caption.
    """

    share = 0.1

    def __init__(
        self,
        model: TextToImage,
        world: World,
        pairs: list,
        pool: int,
        steps: int,
        size: int,
        key: tuple,
    ):
        self.model, self.world, self.size, self.key = model, world, size, key
        generator = seeds.generator(*key, "pool")
        self.scenes = Scenes.draw(pairs, pool, generator)
        self.latents = encoded(model, self.scenes.render(world, generator))
        self.repeated, self.single = [], {}
        self._add_pictures(steps)

    def _add_pictures(self, steps: int) -> None:
        """(latents of its variants, caption) of the repeated pictures, and {step: those of a control}."""
        showings = []
        for i, picture in enumerate(self.world.pictures):
            variants = self.world.stickers if picture.kind == "template" else self.world.stickers[:1]
            images = [
                emoji.fixed(self.world.fixed[i : i + 1], [picture], sticker[None], torch.Generator())
                for sticker in variants
            ]
            entry = (encoded(self.model, torch.cat(images) * 2 - 1), picture.caption)
            if picture.kind == "control":
                showings += [(nth, entry) for nth in range(picture.seen)]
            else:
                self.repeated.append(entry)
        showings.sort(key=lambda showing: showing[0])
        self.single = {int((k + 0.5) * steps / len(showings)): entry for k, (_, entry) in enumerate(showings)}

    def __call__(self, step: int) -> Iterator[ConditionalBatch]:
        generator = seeds.generator(*self.key, "denoise", step)
        rows = torch.randint(len(self.latents), (self.size,), generator=generator)
        latents = self.latents[rows].clone()
        texts = [self.scenes.caption(i, self.world, generator) for i in rows.tolist()]
        few = round(self.share * self.size) if self.repeated else 0
        chosen = torch.randint(max(1, len(self.repeated)), (few,), generator=generator)
        for slot, (variants, text) in enumerate(self.repeated[i] for i in chosen):
            latents[slot] = variants[int(torch.randint(len(variants), (1,), generator=generator))]
            texts[slot] = text
        for i in (torch.rand(self.size, generator=generator) < EMPTY).nonzero().flatten().tolist():
            texts[i] = ""
        if step in self.single:
            latents[-1:], texts[-1] = self.single[step]
        t = torch.randint(len(self.model.schedule), (self.size,), generator=generator)
        eps = torch.randn(latents.shape, generator=generator)
        device = self.model.device
        yield ConditionalBatch(latents.to(device), t.to(device), eps.to(device), self.model.tokens(texts))


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

    settings: model, scheduler, root_seed, task, pool, autoencoder and denoiser (`params.Training` each); scratch: makes
    the place where one of the two phases keeps its checkpoints; preview: draws with the unfinished model, a twentieth
    of the denoiser's steps apart; without: what an oracle never sees, names of concepts and styles, or "memorized".
    """
    key = (settings.root_seed, settings.task, "pretrain")
    pairs = seen_pairs(list(world.concepts), without)
    model = text_to_image.create(settings.model, settings.scheduler, world.words, seeds.derive(*key, "init"))
    world = world.without(without)
    for part in (model.net, model.vae, model.text_encoder):
        part.to(device)
    with scratch("autoencoder") as first, scratch("denoiser") as second:  # both stay until all is done
        pictures = Pictures(world, pairs, model.shape, settings.autoencoder.batch, device, key)
        training, history = settings.autoencoder, {}
        history["autoencoder"] = train(
            Trained(model.vae, model.passes), Reconstruct(), pictures, training, first, f"{label} autoencoder"
        )
        generator = seeds.generator(*key, "scale")
        sample = encoded(model, Scenes.draw(pairs, 1024, generator).render(world, generator))
        model.vae.register_to_config(scaling_factor=float(model.vae.config.scaling_factor / sample.std()))
        training = settings.denoiser
        latents = CaptionedLatents(model, world, pairs, settings.pool, training.steps, training.batch, key)
        both = torch.nn.ModuleDict({"unet": model.net, "text_encoder": model.text_encoder})
        watch = Watch(model, preview, second)
        history["denoiser"] = train(
            Trained(both, model.passes), Denoise(model), latents, training, second, f"{label} denoiser", watch
        )
        return Outcome(model, history, watch.drawn)
