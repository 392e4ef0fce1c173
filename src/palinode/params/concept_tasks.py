"""A task of the kind `concept`: what is forgotten, from which base, and what takes its place."""

from pydantic import model_validator

from palinode.params.fields import DataPath, Override, Positive, Rate, Settings, UnlearnDefaults

Name = str | int  # of a thing or a style, or a class


class ConceptAmounts(Settings):
    """How much a concept task trains on."""

    retain: Positive = 1024  # pictures that stay
    pairs: Positive = 256  # pictures of the target, and as many that the original model draws of the anchor
    fisher: Positive = 16  # pictures, each at `fisher_steps` time steps
    fisher_steps: Positive | None = 100  # null: all, as in Selective Amnesia; of 1,000, 100 give 1.4 times as much
    saliency: Positive = 20  # batches
    saliency_guidance: Rate | None = None  # of the prediction behind SalUn's mask; null: that of `sample`
    saliency_clip: Rate | None = None  # gradient norm of a batch; null: as it is


class ConceptSample(Settings):
    guidance: Rate = 3.0
    steps: Positive = 25  # DDIM
    each: Positive = 64  # pictures a prompt set
    chunk: Positive = 64  # pictures at a time


class ConceptTask(Settings):
    """Forget a thing, a style or a class of a conditional base, and put the anchor in its place.

    Lists of targets and of anchors, of one length, make several subjects.
    """

    base: str  # under `base_models`, of the kind class or text
    prompts: DataPath | None = None  # YAML file, for a base with a `source` only
    target: Name | list[Name]
    anchor: Name | list[Name]
    data: ConceptAmounts = ConceptAmounts()
    unlearn: UnlearnDefaults = UnlearnDefaults()
    sample: ConceptSample = ConceptSample()
    trajectory_steps: Positive | None = None  # of the sampler whose trajectories train methods; null: sample.steps
    bootstrap: Positive = 200
    lpips_trunk: str | None = None  # path of torchvision's AlexNet checkpoint, for drift beyond the judge's
    overrides: dict[str, Override] = {}

    @property
    def steps_of_trajectories(self) -> int:
        return self.trajectory_steps or self.sample.steps

    @property
    def pairs(self) -> list[tuple[Name, Name]]:
        """(target, anchor) of each subject."""
        targets = self.target if isinstance(self.target, list) else [self.target]
        anchors = self.anchor if isinstance(self.anchor, list) else [self.anchor]
        return list(zip(targets, anchors, strict=True))

    @model_validator(mode="after")
    def _paired(self) -> "ConceptTask":
        targets = self.target if isinstance(self.target, list) else [self.target]
        anchors = self.anchor if isinstance(self.anchor, list) else [self.anchor]
        if len(targets) != len(anchors) or not targets:
            raise ValueError(f"{len(targets)} targets need as many anchors, not {len(anchors)}")
        for target, anchor in zip(targets, anchors, strict=True):
            if target == anchor:
                raise ValueError(f"target and anchor are both {target!r}: nothing would be forgotten")
        return self
