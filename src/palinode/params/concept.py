"""A task of the family concept: what is forgotten, from which base, and what takes its place."""

from typing import Annotated

from pydantic import Field

from palinode.params.fields import Override, Positive, Rate, Settings, UnlearnDefaults


class ConceptData(Settings):
    """How much a concept task trains on."""

    kept: Positive = 1024  # pictures that stay
    pairs: Positive = 256  # pictures of the target, and as many that the original model draws of the anchor
    traces: Positive = 64  # sampled paths whose states train methods that need no pictures
    fisher: tuple[Positive, Positive] = (64, 16)  # pictures, time steps a picture
    saliency: Positive = 20  # batches

class ConceptSample(Settings):
    guidance: Rate = 3.0
    steps: Positive = 25  # DDIM
    each: Positive = 64  # pictures a stratum
    chunk: Positive = 64  # pictures at a time

class ConceptTask(Settings):
    """Forget a thing, a style or a class of a conditional base, and put the anchor in its place."""

    base: str  # under `text_bases` or `class_bases`
    prompts: Annotated[str, Field(pattern="^data/")] | None = None  # YAML file, for a base with a `source` only
    target: str | int
    anchor: str | int
    data: ConceptData = ConceptData()
    unlearn: UnlearnDefaults = UnlearnDefaults()
    sample: ConceptSample = ConceptSample()
    bootstrap: Positive = 200
    lpips_trunk: str | None = None  # path of torchvision's AlexNet checkpoint, for drift beyond the judge's
    overrides: dict[str, Override] = {}
