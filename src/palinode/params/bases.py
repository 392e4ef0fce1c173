"""Conditional base models: text-to-image and class-conditional."""

from typing import Literal

from pydantic import model_validator

from palinode.params.fields import Float, JudgeData, Positive, Rate, Settings, Training
from palinode.params.tasks import Task


class TextGate(Settings):
    """What a text-to-image base must show: shares of samples, judged or compared with the memorised pictures."""

    guidance: Rate = 3.0
    steps: Positive = 25  # DDIM
    concept: Float = 0.95  # at least; seen pairs under unseen combinations of word, template and background
    style: Float = 0.9
    copies: Float = 0.8  # of memorised captions, at least
    false_copies: Float = 0.05  # of controls and ordinary captions, at most

class Phase(Training):
    """One phase of training a text-to-image base: in fp32, one batch a step."""

    @model_validator(mode="after")
    def _used(self):
        for name in ("accumulate", "precision", "gradient_checkpointing"):
            if getattr(self, name) != Training.model_fields[name].default:
                raise ValueError(f"{name} is not used when a text-to-image base or its judge is trained")
        return self

class TextBase(Settings):
    """A text-to-image model: a finished one, or one that the pipeline trains from captioned emoji, with its oracles and
    its judge."""

    source: str | None = None  # StableDiffusionPipeline folder, hub id or id@revision; then nothing below
    model: dict[Literal["vae", "text_encoder", "unet"], dict] | None = None  # of diffusers' and transformers' classes
    scheduler: dict | None = None
    pool: Positive = 32768  # pictures encoded once and drawn from while training the denoiser
    autoencoder: Phase | None = None
    contrast: Phase | None = None  # of the text encoder; its batch is what a picture has to find its caption in
    denoiser: Phase | None = None
    judge: Phase = Phase(steps=6000, lr=2e-3, batch=128, betas=(0.9, 0.999), decay="cosine")
    gate: TextGate = TextGate()

    @property
    def known(self) -> str:
        """What is known of what it was shown: "emoji", all of it, or "list", what a user lists."""
        return "list" if self.source else "emoji"

    @model_validator(mode="after")
    def _one_origin(self):
        given = sorted(self.model_fields_set - {"source"})
        if self.source is not None and given:
            raise ValueError(f"{given[0]} is not used with `source`, which names a finished model")
        for name in ("model", "scheduler", "autoencoder", "contrast", "denoiser"):
            if self.source is None and getattr(self, name) is None:
                raise ValueError(f"needs either `source`, or what a base is trained by: {name} is missing")
        return self

class ClassGate(Settings):
    """What a class-conditional base must show."""

    guidance: Rate = 3.0  # the EraseDiff paper: (1 + w) eps(x_t, c) - w eps(x_t), w = 2
    steps: Positive = 25  # DDIM
    each: Positive = 100  # samples a class
    recognised: Float = 0.95  # share of each class's samples, at least

class ClassBase(Settings):
    """A class-conditional pixel model that the pipeline trains from labelled images, with its oracles and its judge."""

    images: str  # .npy, uint8 [N, H, W, C]; labels lie beside each file as `<name>-labels.npy`
    judge: JudgeData
    size: Positive
    channels: Literal[1, 3] = 3
    model: dict  # arguments of diffusers.UNet2DModel beside size, channels and classes
    # x_0 is not clipped when sampling: under guidance DDIM would step on with a noise that does not belong to it, and
    # 2 % of the ones it was asked for came out as ones, with clipping.
    scheduler: dict = Task.model_fields["scheduler"].default | {"clip_sample": False}
    pretrain: Training
    gate: ClassGate = ClassGate()
