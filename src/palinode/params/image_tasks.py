"""A task of the kind `images`: which images a base model forgets, and how that is trained, sampled and evaluated."""

from typing import Literal

from palinode.params.fields import Override, Positive, Rate, Settings, UnlearnDefaults


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
    sscd: str | None = None  # file of SSCD, TorchScript or ONNX; null: denoise similarity by it is reported as absent
    lpips_trunk: str | None = None  # path of torchvision's AlexNet checkpoint; null: LPIPS is reported as absent


class ImageTask(Settings):
    """Forget images that a base model was trained on."""

    base: str  # under `base_models`, of the kind unconditional
    forget: str | list[str]  # a .npy file or a folder; or names of files inside the folder of the base's images
    oracle: str | None = None  # a base that never saw A; null: `without: repeated`, where A is what the base repeats
    subjects: Literal["together", "each"] = "together"  # one forget set, or each of its images a subject of its own
    hit_ratio: Rate = 0.87  # a sample is a hit within this fraction of the nearest retain image (SISS: 10 / 11.49)
    neighbours: Positive = 10  # retained images found for each image to forget, for methods that need them
    unlearn: UnlearnDefaults = UnlearnDefaults()
    sample: Sample = Sample()
    evaluate: Evaluate = Evaluate()
    overrides: dict[str, Override] = {}
