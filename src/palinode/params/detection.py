"""Detection of memorized prompts."""

from typing import Annotated

from pydantic import Field

from palinode.params.fields import DataPath, Int, Positive, Rate, Settings


class Detection(Settings):
    """Which text-to-image bases to search for memorized prompts, and how. Defaults: Wen et al. (arXiv 2407.21720)."""

    bases: list[str] = []
    # CSV with columns prompt and kind, in data/, which DVC watches; none: the captions whose ground truth is known
    prompts: DataPath | None = None
    generations: Positive = 4  # noises a prompt
    steps: Annotated[Int, Field(ge=10)] = 50  # DDIM; the longest prefix that is scored by itself has 10
    guidance: Rate = 7.5
    batch: Positive = 64  # rows, prompts x generations, sent through the network at a time, twice each
    detectors: list[str] = ["noise_norm", "one_step", "seed_similarity", "anisotropy", "sharpness"]
