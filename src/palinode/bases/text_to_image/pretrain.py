"""Training a text-to-image base from scratch, in the order of Stable Diffusion.

First the autoencoder, then the text encoder, by contrast with pictures (`bases/text_encoder.py`), then the denoiser,
which attends to the finished text encoder's states.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from palinode.bases.caption_batches import CaptionedLatents, PictureBatch, Pictures, Pool
from palinode.bases.progress import Outcome, Watch
from palinode.bases.text_encoder import Contrast, PairEncoder
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.io import write_absence
from palinode.core.scratch import Scratch
from palinode.core.work import Work
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs
from palinode.models import files, loading, text_to_image
from palinode.models.schedule import Schedule
from palinode.models.text_to_image import TextToImage
from palinode.params.stage_settings import PretrainText
from palinode.sampling import prompted
from palinode.training.denoising import Denoise, OneLoss
from palinode.training.loop import Trained, train

GUIDANCE = 3.0  # of the pictures drawn while training
STEPS = 20
KL_WEIGHT = 1e-3


class Reconstruct(OneLoss):
    """Squared error of the decoded image plus a small KL term that keeps latents near N(0, I)."""

    def losses(self, model: Any, batch: PictureBatch) -> dict[str, Tensor]:
        posterior = model.net.encode(batch.x).latent_dist
        decoded = model.net.decode(posterior.mean + posterior.std * batch.eps).sample
        error = (decoded - batch.x).square().flatten(1).sum(1)
        return {"objective": (error + KL_WEIGHT * posterior.kl()).mean()}


def snr_weights(schedule: Schedule) -> Tensor:
    """Weights of the time steps for the error of the noise, float32 [T]: min(25, (1 + min(SNR, 5)) / SNR).

    What a picture shows is decided where noise prevails, and there predicting the noise is easy whatever the caption
    says: under equal weights things, and their styles above all, are learnt more slowly. For the error of x_0 this is
    the weight 1 + SNR of v-prediction (Salimans & Ho, arXiv 2202.00512), held at 6 where there is little noise (a cut
    at SNR 5, as Hang et al., arXiv 2303.09556, have it for their weight), and 25 SNR where there is next to nothing but
    noise (SNR below 1/24), so that the last steps do not drown the others.
    """
    ratio = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return ((1 + ratio.clamp(max=5)) / ratio).clamp(max=25).float()


def run(work: Work) -> None:
    """Write model/ (fp16) and training/. A base with a `source` is that model, by its name alone."""
    settings = work.settings(PretrainText)
    model_folder, log_folder = work.outputs
    if settings.source is not None:
        files.name_source(model_folder, settings.source)
        write_absence(log_folder, f"{settings.name} is {settings.source}, which is not trained here")
        return
    corpus = EmojiCorpus.read(work.inputs[1], settings.corpus)
    without = frozenset() if settings.without is None else frozenset({settings.without})
    unknown = without - {*corpus.concepts, *STYLES, "memorized"}
    if unknown:
        raise UserError(f"{work.name}: {min(unknown)!r} is no concept, no style and not 'memorized'")
    with work.scratch() as scratch:
        outcome = pretrain(corpus, settings, scratch, work.device, work.name, without)
        loading.save(outcome.model, model_folder, torch.float16)
        outcome.write_progress(log_folder)


def pretrain(
    corpus: EmojiCorpus,
    settings: PretrainText,
    scratch: Scratch,
    device: torch.device,
    label: str,
    without: frozenset[str] = frozenset(),
) -> Outcome:
    """Train a text-to-image model from scratch; each phase keeps its checkpoints in a part of `scratch`.

    without: what an oracle never sees, names of concepts and styles, or "memorized".
    """
    assert settings.model is not None
    assert settings.scheduler is not None
    key = (settings.root_seed, settings.name, "pretrain")
    pairs = seen_pairs(list(corpus.concepts), without)
    model = text_to_image.create(settings.model, settings.scheduler, corpus.words, seeds.derive(*key, "init"))
    examples = corpus.examples
    corpus = corpus.without(without)
    for part in (model.net, model.vae, model.text_encoder):
        part.to(device)
    history = {"autoencoder": _train_autoencoder(model, corpus, pairs, settings, scratch, label)}
    _scale_latents(model, corpus, pairs, key)
    pool = Pool(model, corpus, pairs, settings.pool, key)
    history["contrastive"] = _train_text_encoder(model, pool, settings, scratch, label)

    def preview() -> np.ndarray:
        return prompted.draw(model, examples, (settings.root_seed, settings.name), GUIDANCE, STEPS)

    place = scratch.part("denoiser")
    watch = Watch(preview, place)
    training = settings.denoiser
    assert training is not None
    captioned = CaptionedLatents.to_memorize(pool, training.batch, key, training.steps)
    denoise = Denoise(model, snr_weights(model.schedule).to(device))
    history["denoiser"] = train(model, denoise, captioned, training, place, f"{label} denoiser", watch)
    return Outcome(model, history, watch.drawn)


def _train_autoencoder(
    model: TextToImage,
    corpus: EmojiCorpus,
    pairs: list[tuple[int, int]],
    settings: PretrainText,
    scratch: Scratch,
    label: str,
) -> list[dict]:
    training = settings.autoencoder
    assert training is not None
    key = (settings.root_seed, settings.name, "pretrain")
    pictures = Pictures(corpus, pairs, model.shape, training.batch, model.device, key)
    part = scratch.part("autoencoder")
    return train(Trained(model.vae, model.nfe), Reconstruct(), pictures, training, part, f"{label} autoencoder")


def _scale_latents(model: TextToImage, corpus: EmojiCorpus, pairs: list[tuple[int, int]], key: tuple) -> None:
    """Set the autoencoder's scaling factor, so that latents have the standard deviation 1."""
    generator = seeds.generator(*key, "scale")
    latents = model.encode_all(Scenes.draw(pairs, 1024, generator).render(corpus, generator))
    scale = float(model.vae.config.scaling_factor / latents.std())
    model.vae.register_to_config(scaling_factor=scale)


def _train_text_encoder(
    model: TextToImage, pool: Pool, settings: PretrainText, scratch: Scratch, label: str
) -> list[dict]:
    training = settings.contrastive
    assert training is not None
    key = (settings.root_seed, settings.name, "pretrain")
    encoder = PairEncoder(model, seeds.derive(*key, "contrast")).to(model.device)
    captioned = CaptionedLatents.of_all(pool, training.batch, key)
    part = scratch.part("contrastive")
    history = train(Trained(encoder, model.nfe), Contrast(encoder), captioned, training, part, f"{label} text encoder")
    model.text_encoder.requires_grad_(False)
    return history
