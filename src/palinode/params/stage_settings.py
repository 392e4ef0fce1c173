"""What each stage reads from its plan file: the typed blocks of one verb, one kind, one name."""

from typing import Literal

from palinode.params.attacks import PromptTuning, Relearn
from palinode.params.bases import (
    BaseKind,
    ClassGate,
    ImageData,
    ImageGate,
    JudgeData,
    Phase,
    TextGate,
    TextSampler,
)
from palinode.params.concept_tasks import ConceptSample, Name
from palinode.params.fields import CorpusName, Int, Known, Settings, Trainable, Training
from palinode.params.image_tasks import Evaluate, Sample
from palinode.params.prompt_tasks import PromptChoice, PromptSample, PromptSplit

Subject = int | Literal["sequential"]


class Named(Settings):
    """The root of all seeds, and the name of a task or a base that its seeds hold."""

    root_seed: Int
    name: str


# Bases


class OfBase(Named):
    kind: BaseKind


class PrepareImageBase(OfBase):
    data: ImageData
    trained: bool  # False: a finished model, for which only the judge's images are prepared
    oracle: bool  # without the repeated images, and without a judge of its own


class PrepareClassBase(OfBase):
    images: str
    judge: JudgeData | None  # None: an oracle, which has none of its own
    size: int
    channels: int
    without: int | None


class PrepareTextBase(OfBase):
    trained: bool


class OfCorpus(OfBase):
    corpus: CorpusName


class TrainJudge(OfBase):
    """Of an unconditional or a class-conditional base; None: it has none of its own, for `reason`."""

    judge: JudgeData | None
    reason: str


class TrainSceneJudge(OfCorpus):
    training: Phase | None
    reason: str


class PretrainImages(OfBase):
    source: str | None
    model: dict | None
    scheduler: dict | None  # null: the one that comes with `source`
    pretrain: Training | None
    size: int
    channels: int


class PretrainClasses(OfBase):
    model: dict
    scheduler: dict
    pretrain: Training


class PretrainText(OfCorpus):
    source: str | None
    model: dict | None
    scheduler: dict | None
    pool: int
    autoencoder: Phase | None
    contrastive: Phase | None
    denoiser: Phase | None
    without: str | None


class GateImages(OfBase):
    gate: ImageGate | None
    reason: str


class GateClasses(OfBase):
    gate: ClassGate | None
    reason: str


class GateText(OfCorpus):
    gate: TextGate | None
    sampler: TextSampler
    reason: str


class FitSecondJudge(OfBase):
    """reason: why there is none; empty if there is."""

    reason: str


class FitSecondSceneJudge(FitSecondJudge, OfCorpus):
    """On `fit` batches of 256 pictures; tested on `held` others."""

    fit: int
    held: int


class Detect(Named):
    prompts: str | None
    ground_truth: Known
    generations: int
    steps: int
    guidance: float
    batch: int
    detectors: list[str]


class Mitigate(Named):
    generations: int
    steps: int
    guidance: float
    batch: int
    ground_truth: Known


class Reference(Settings):
    """The model of a reference row, by name of its folder in models/; or why there is none."""

    model: str | None
    reason: str = ""


class Bound(Settings):
    """The models one task uses; references: by row, or by subject/row."""

    base: str
    detect: bool
    references: dict[str, Reference]


class Bind(Settings):
    tasks: dict[str, Bound]


# Tasks


class OfSubject(Named):
    """absent: why the task has no such subject."""

    absent: str | None


class Amounts(Settings):
    """How many pictures a subject trains on, as in `ConceptAmounts`."""

    retain: int
    pairs: int


class PrepareImages(Named):
    data: ImageData
    forget: str | list[str]
    together: bool
    hit_ratio: float
    neighbours: int


class PrepareConcept(OfSubject):
    kind: BaseKind
    target: Name
    anchor: Name
    images: str | None  # of a class-conditional base
    prompts: str | None  # of a finished text-to-image base
    amounts: Amounts
    sample: ConceptSample


class PreparePrompts(Named):
    ground_truth: Known
    sscd: str | None
    real: int
    choose: PromptChoice
    split: PromptSplit
    neighbours: int
    sample: PromptSample
    probe_steps: int


class Importance(Named):
    fisher: int
    fisher_steps: int | None
    saliency: int
    saliency_guidance: float
    saliency_clip: float | None
    batch: int
    gradient_checkpointing: bool


class Unlearn(Named):
    method: str
    options: dict
    trainable: Trainable
    training: Training
    absent: str | None = None  # why this row cannot run on this task


class UnlearnConcept(Unlearn):
    trajectory_steps: int


class UnlearnPrompts(Unlearn):
    sample: PromptSample
    trajectory_steps: int
    probe_steps: int


class SampleImages(Named):
    sample: Sample


class SampleConcept(Named):
    sample: ConceptSample


class SamplePrompts(Named):
    """probe_steps: of the sampler of `detect`, at whose first step the norms of prompts are measured."""

    sample: PromptSample
    probe_steps: int


class EvaluateImages(Named):
    evaluate: Evaluate


class CountImages(Named):
    """count, look, far, chunk: as in `Counts`; steps, precision: of the sampler, which is DDPM."""

    count: int
    look: int
    far: float
    chunk: int
    steps: int
    precision: Literal["fp32", "bf16"]


class EvaluateConcept(Named):
    kind: BaseKind
    target: Name
    bootstrap: int
    lpips_trunk: str | None


class EvaluatePrompts(Named):
    ground_truth: Known
    sscd: str | None
    real: int
    bootstrap: int


class AttackConcept(Named):
    kind: BaseKind
    target: Name
    sample: ConceptSample
    bootstrap: int
    budget: Relearn | PromptTuning
    training: Training
