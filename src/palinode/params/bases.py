"""Base models: what unlearning starts from, and their oracles, which never saw what is to be forgotten."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from palinode.params.fields import CorpusName, Int, JudgeData, Known, Positive, Rate, Settings, Share, Training

BaseKind = Literal["unconditional", "class", "text"]

DDPM_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "variance_type": "fixed_small",
}


class Repeated(Settings):
    """Images that a base is to memorize."""

    images: str  # a .npy file (uint8 [N, H, W, C]) or a folder of images
    copies: Annotated[Int, Field(ge=1, le=100_000)] = 1  # how often each is in the training set X
    hit_ratio: Rate = 0.87  # what the check calls a hit, as a fraction of the distance to the nearest other image


class ImageData(Settings):
    """The training set X of an unconditional base, and real images to compare with."""

    images: str  # a .npy file (uint8 [N, H, W, C]) or a folder of images
    repeated: Repeated | None = None  # in X besides
    size: Positive  # pixels, height = width; an image of another size is an error
    channels: Literal[1, 3] = 3
    reference: str | None = None  # real images no model trains on; null: the training images themselves
    judge: JudgeData | None = None


class ImageGate(Settings):
    """What an unconditional base must show before anything is unlearned from it."""

    samples: Positive = 4096
    hit_rate: tuple[Share, Share] = (0.003, 0.03)
    fid_ratio: Rate = 20.0  # FID to the reference at most this many times the real-vs-real FID
    inception_share: Share = 0.0  # Inception Score at least this share of the reference's
    steps: Positive = 50  # DDPM
    chunk: Positive = 64


class UnconditionalBase(Settings):
    """A pixel model without conditions: a finished one, or one that the pipeline trains."""

    kind: Literal["unconditional"]
    data: ImageData
    source: str | None = None  # diffusers folder, hub id or id@revision; null: `pretrain` trains one from `model`
    model: dict | None = None  # arguments of diffusers.UNet2DModel beside size and channels
    scheduler: dict | None = None  # null: DDPM's; with `source` that model's own
    pretrain: Training | None = None
    gate: ImageGate | None = None
    start: str | None = None  # a base whose training is continued; for bases that `make tune` trains only

    @model_validator(mode="before")
    @classmethod
    def _ddpm(cls, values: Any) -> Any:
        trained = isinstance(values, dict) and values.get("source") is None
        return values | {"scheduler": values.get("scheduler") or DDPM_SCHEDULER} if trained else values

    @model_validator(mode="after")
    def _one_origin(self) -> "UnconditionalBase":
        if (self.source is None) == (self.model is None or self.pretrain is None):
            raise ValueError("needs either `source`, or `model` and `pretrain`")
        if self.gate is not None and (self.data.repeated is None or self.data.judge is None):
            raise ValueError("gate needs `data.repeated` and `data.judge`")
        if self.gate is not None and self.source is not None:
            raise ValueError("gate is not used with `source`, which names a finished model")
        return self


class ClassGate(Settings):
    """What a class-conditional base must show."""

    guidance: Rate = 3.0  # the EraseDiff paper: (1 + w) eps(x_t, c) - w eps(x_t), w = 2
    steps: Positive = 25  # DDIM
    each: Positive = 100  # samples a class
    recognised: Share = 0.95  # share of each class's samples, at least


class ClassBase(Settings):
    """A class-conditional pixel model that the pipeline trains from labelled images."""

    kind: Literal["class"]
    images: str  # .npy, uint8 [N, H, W, C]; labels lie beside each file as `<name>-labels.npy`
    judge: JudgeData
    size: Positive
    channels: Literal[1, 3] = 3
    model: dict  # arguments of diffusers.UNet2DModel beside size, channels and classes
    # x_0 is not clipped when sampling: under guidance DDIM would step on with a noise that does not belong to it, and
    # 2 % of the ones it was asked for came out as ones, with clipping.
    scheduler: dict = DDPM_SCHEDULER | {"clip_sample": False}
    pretrain: Training
    gate: ClassGate = ClassGate()

    @model_validator(mode="after")
    def _used(self) -> "ClassBase":
        if self.pretrain.accumulate != 1:
            raise ValueError("pretrain.accumulate is not used when a class-conditional base is trained")
        return self


class TextSampler(Settings):
    """How pictures of a text-to-image base are drawn where it is checked, and searched for memorized prompts."""

    guidance: Rate = 3.0
    steps: Annotated[Int, Field(ge=10)] = 25  # DDIM; the longest prefix that a detector scores by itself has 10


class TextGate(Settings):
    """What a text-to-image base must show: shares of samples, judged or compared with the memorized pictures."""

    concept: Share = 0.95  # at least; seen pairs under unseen combinations of word, template and background
    style: Share = 0.9
    copies: Share = 0.8  # of memorized captions, at least
    partial_copies: Share = 0.6  # of those that are memorized in part, at least
    false_copies: Share = 0.05  # of controls, at most
    ordinary_copies: Share = 0.05  # of ordinary captions, at most
    variety: Share = 0.0  # distance of an ordinary caption's pictures / that of real ones that fit it, at least
    edits: Share = 0.0  # of the edits of memorized captions, those whose pictures are copies in part, at least


class Phase(Training):
    """One phase of training a text-to-image base: in fp32, one batch a step."""

    @model_validator(mode="after")
    def _used(self) -> "Phase":
        for name in ("accumulate", "precision", "gradient_checkpointing"):
            if getattr(self, name) != Training.model_fields[name].default:
                raise ValueError(f"{name} is not used when a text-to-image base or its judge is trained")
        return self


class SecondJudgeFit(Settings):
    """Batches of 256 pictures that the second judge is fitted on, and others that it is tested on."""

    fit: Positive = 40
    held: Positive = 8


class TextBase(Settings):
    """A text-to-image model: a finished one, or one that the pipeline trains from captioned emoji."""

    kind: Literal["text"]
    source: str | None = None  # StableDiffusionPipeline folder, hub id or id@revision; then only `sampler` besides
    sampler: TextSampler = TextSampler()
    corpus: CorpusName = "emoji"  # captions that say nearly all there is to say, or as on the web, with their memories
    model: dict[Literal["vae", "text_encoder", "unet"], dict] | None = None  # of diffusers' and transformers' classes
    scheduler: dict | None = None
    pool: Positive = 32768  # pictures encoded once and drawn from while training the denoiser
    autoencoder: Phase | None = None
    contrastive: Phase | None = None  # of the text encoder; its batch is what a picture has to find its caption in
    denoiser: Phase | None = None
    judge: Phase = Phase(steps=6000, lr=2e-3, batch=128, betas=(0.9, 0.999), decay="cosine")
    second_judge: SecondJudgeFit = SecondJudgeFit()
    gate: TextGate = TextGate()

    @property
    def ground_truth(self) -> Known:
        """What is known of what it was shown: all of a corpus, or what a user lists."""
        return "list" if self.source else self.corpus

    @model_validator(mode="after")
    def _one_origin(self) -> "TextBase":
        unused = sorted(self.model_fields_set - {"source", "kind", "sampler"})
        if self.source is not None and unused:
            raise ValueError(f"{unused[0]} is not used with `source`, which names a finished model")
        if self.source is not None and "sampler" not in self.model_fields_set:
            raise ValueError("sampler is missing: how pictures of a finished model are drawn is not known")
        for name in ("model", "scheduler", "autoencoder", "contrastive", "denoiser"):
            if self.source is None and getattr(self, name) is None:
                raise ValueError(f"needs either `source`, or what a base is trained by: {name} is missing")
        return self


class OracleBase(Settings):
    """A base of `of`'s recipe that never saw something: the repeated images, a class, a thing, a style, `memorized`."""

    of: str
    without: str | int


def _tag(value: object) -> str:
    """Which kind of block a base is: an oracle names its base by `of`."""
    fields = value if isinstance(value, dict) else vars(value)
    return "oracle" if "of" in fields or "without" in fields else str(fields.get("kind"))


Trained = UnconditionalBase | ClassBase | TextBase
Base = Annotated[
    Annotated[UnconditionalBase, Tag("unconditional")]
    | Annotated[ClassBase, Tag("class")]
    | Annotated[TextBase, Tag("text")]
    | Annotated[OracleBase, Tag("oracle")],
    Discriminator(
        _tag, custom_error_type="base_kind", custom_error_message="kind must be unconditional, class or text"
    ),
]
