"""Detection of memorized prompts."""

from palinode.params.fields import DataPath, Positive, Settings


class Detection(Settings):
    """Which text-to-image bases to search for memorized prompts, and how: each by its own `sampler`."""

    bases: list[str] = []
    # CSV with columns prompt and kind, in data/, which DVC watches; none: the captions whose ground truth is known
    prompts: DataPath | None = None
    generations: Positive = 4  # noises a prompt
    batch: Positive = 64  # rows, prompts x generations, sent through the network at a time, twice each
    detectors: list[str] = ["noise_norm", "one_step", "seed_similarity", "anisotropy", "sharpness"]
