"""A task of the family data: its images, its base model, and how it is trained, sampled and evaluated."""

from typing import Literal

from pydantic import model_validator

from palinode.params.fields import Float, JudgeData, Override, Positive, Rate, Settings, Training, UnlearnDefaults


class Data(Settings):
    """Where a task's images come from and how they are split."""

    images: str  # retain set X\A: a .npy file (uint8 [N,H,W,C]) or a folder of images
    forget: str | list[str]  # A: a .npy file, a folder, or names of files inside the folder `images`
    size: Positive  # pixels, height = width; an image of another size is an error
    channels: Literal[1, 3] = 3
    copies: Positive = 1  # how often each forget image is in the training set X
    reference: str | None = None  # real images no model trains on; null: the retain set itself
    judge: JudgeData | None = None
    hit_ratio: Rate = 0.87  # a sample is a hit within this fraction of the nearest retain image (the paper: 10 / 11.49)

class Gate(Settings):
    """What the base model must show before anything is unlearned from it."""

    samples: Positive = 4096
    hit_rate: tuple[Float, Float] = (0.003, 0.03)
    fid_ratio: Rate = 20.0  # FID to the reference at most this many times the real-vs-real FID

class Sample(Settings):
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    steps: Positive = 50
    count: Positive = 1024
    chunk: Positive = 64
    precision: Literal["fp32", "bf16"] = "fp32"

class Evaluate(Settings):
    held: Positive = 32  # held-out images for NLL and eps-error
    probes: Positive = 8  # Hutchinson probes for the forget image
    ode_steps: Positive = 16  # 0.011 bits/dim from 32 on the T-shirt base
    eps_levels: Positive = 40
    eps_draws: Positive = 16
    denoise_from: Positive = 250
    denoise_draws: Positive = 16
    bootstrap: Positive = 200
    splits: Positive = 10  # of the Inception Score
    kid_subset: Positive = 256
    batch: Positive = 64
    lpips_trunk: str | None = None  # path of torchvision's AlexNet checkpoint; null: LPIPS is reported as absent

class Task(Settings):
    data: Data
    base: str | None = None  # diffusers folder, hub id or id@revision; null: `pretrain` trains one from `model`
    oracle: str | None = None  # the same for a model that never saw A; only where `base` is given
    model: dict | None = None  # arguments of diffusers.UNet2DModel beside size and channels
    scheduler: dict = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
                       "prediction_type": "epsilon", "clip_sample": True, "variance_type": "fixed_small"}  # fmt: skip
    pretrain: Training | None = None
    gate: Gate | None = None
    unlearn: UnlearnDefaults = UnlearnDefaults()
    sample: Sample = Sample()
    evaluate: Evaluate = Evaluate()
    overrides: dict[str, Override] = {}

    @model_validator(mode="after")
    def _one_base(self):
        if (self.base is None) == (self.model is None or self.pretrain is None):
            raise ValueError("needs either `base`, or `model` and `pretrain`")
        return self
