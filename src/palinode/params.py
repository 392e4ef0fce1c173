"""`params.yaml`, typed in one place: every key, its type, its default and its meaning."""

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from palinode.errors import UserError, one_line

NAME = re.compile(r"[a-z0-9-]+")  # DVC splits parameter names at dots


def _no_bool(value):
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


# A string that is a valid number is read as that number: `dvc exp run -S lr=3e-5` writes `3e-05`, which YAML calls a
# string.
Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Positive = Annotated[Int, Field(ge=1)]
Rate = Annotated[Float, Field(gt=0)]


class Settings(BaseModel):
    """A block of parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class JudgeData(Settings):
    """Labelled images for the judge; labels lie beside each file as `<name>-labels.npy`."""

    train: str
    test: str


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


class Ema(Settings):
    limit: Annotated[Float, Field(ge=0, lt=1)] = 0.9999
    inv_gamma: Rate = 1.0
    power: Rate = 0.75


class Training(Settings):
    """One call of the training loop. Defaults: the SISS paper's optimiser."""

    steps: Positive
    lr: Rate
    batch: Positive = 64  # images a micro-batch, from each of the sets a method uses
    accumulate: Positive = 1  # micro-batches an optimiser step
    betas: tuple[Float, Float] = (0.95, 0.999)
    weight_decay: Annotated[Float, Field(ge=0)] = 1e-6
    clip: Rate = 1.0  # global gradient norm
    warmup: Annotated[Int, Field(ge=0)] = 0
    decay: Literal["constant", "cosine"] = "constant"
    ema: Ema | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False


class Gate(Settings):
    """What the base model must show before anything is unlearned from it."""

    samples: Positive = 4096
    hit_rate: tuple[Float, Float] = (0.003, 0.03)
    fid_ratio: Rate = 10.0  # FID to the reference at most this many times the real-vs-real FID


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


class UnlearnDefaults(Settings):
    """What every row of a task shares: everything of `Training` except steps and lr."""

    batch: Positive = 64
    accumulate: Positive = 1
    betas: tuple[Float, Float] = (0.95, 0.999)
    weight_decay: Annotated[Float, Field(ge=0)] = 1e-6
    clip: Rate = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False


class Override(Settings):
    """What one task changes in one row."""

    lr: Rate | None = None
    steps: Positive | None = None
    options: dict = {}


class Task(Settings):
    data: Data
    base: str | None = None  # diffusers folder or hub id; null: `pretrain` trains one from `model`
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


class Row(Settings):
    method: str
    lr: Rate
    steps: Positive
    paper: str | None = None  # id of the row in reference/*.yaml this one stands beside
    trainable: Literal["all", "cross-attention", "cross-attention-kv", "others"] = "all"  # others: not cross-attention
    options: dict = {}


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


class ConceptTask(Settings):
    """Forget a thing, a style or a class of a conditional base, and put the anchor in its place."""

    base: str  # under `bases` or `class_bases`
    target: str | int
    anchor: str | int
    data: ConceptData = ConceptData()
    unlearn: UnlearnDefaults = UnlearnDefaults()
    sample: ConceptSample = ConceptSample()
    bootstrap: Positive = 200
    overrides: dict[str, Override] = {}


class ConceptFamily(Settings):
    """Concept unlearning: forget a thing, a style or a class; an anchor takes its place."""

    tasks: list[str] = []
    rows: list[str] = []


class DataFamily(Settings):
    """Data unlearning: forget given images; no anchor exists."""

    tasks: list[str]
    rows: list[str]


class TextGate(Settings):
    """What a text-to-image base must show: shares of samples, judged or compared with the memorised pictures."""

    guidance: Rate = 3.0
    steps: Positive = 25  # DDIM
    concept: Float = 0.95  # at least; seen pairs under unseen combinations of word, template and background
    style: Float = 0.9
    copies: Float = 0.8  # of memorised captions, at least
    false_copies: Float = 0.05  # of controls and ordinary captions, at most


class TextBase(Settings):
    """A text-to-image model that the pipeline trains from captioned emoji, with its oracles and its judge."""

    model: dict[Literal["vae", "text_encoder", "unet"], dict]  # arguments of diffusers' and transformers' classes
    scheduler: dict
    pool: Positive = 32768  # pictures encoded once and drawn from while training the denoiser
    autoencoder: Training
    denoiser: Training
    judge_steps: Positive = 6000
    gate: TextGate = TextGate()


class ClassGate(Settings):
    """What a class-conditional base must show."""

    guidance: Rate = 2.0
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


class ClassFamily(Settings):
    """Class-conditional bases; each is retrained without each class of `oracles`."""

    bases: list[str] = []
    oracles: list[Int] = []


class TextFamily(Settings):
    """Text-to-image bases; each is retrained without each of the `oracles`: a concept, a style, or `memorized`."""

    bases: list[str] = []
    oracles: list[str] = []


class Runtime(Settings):
    """How to run, not what: nothing here is tracked, since nothing here may change a result beyond rounding."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: Positive = 2
    processes: Positive = 1  # sampling processes (accelerate); any number gives the same bytes


class Params(Settings):
    root_seed: Int
    seeds: list[Int]
    runtime: Runtime = Runtime()
    data: DataFamily
    concept: ConceptFamily = ConceptFamily()
    classes: ClassFamily = ClassFamily()
    text: TextFamily = TextFamily()
    rows: dict[str, Row]
    tasks: dict[str, Task]
    concept_tasks: dict[str, ConceptTask] = {}
    text_bases: dict[str, TextBase] = {}
    class_bases: dict[str, ClassBase] = {}

    @model_validator(mode="after")
    def _names(self):
        for kind in ("rows", "tasks", "concept_tasks", "text_bases", "class_bases"):
            for name in getattr(self, kind):
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind}: the name {name!r} may only use a-z, 0-9 and '-'")
        for kind, known in (("rows", self.rows), ("tasks", self.tasks)):
            _check_list(f"data.{kind}", getattr(self.data, kind))
            for name in getattr(self.data, kind):
                if name not in known:
                    raise ValueError(f"data.{kind}: {name!r} is not defined under `{kind}`")
        for kind in ("tasks", "concept_tasks"):
            for name, task in getattr(self, kind).items():
                for row in task.overrides:
                    if row not in self.rows:
                        raise ValueError(f"{kind}.{name}.overrides: {row!r} is not defined under `rows`")
        for family, kind in (("text", "text_bases"), ("classes", "class_bases")):
            for name in getattr(self, family).bases:
                if name not in getattr(self, kind):
                    raise ValueError(f"{family}.bases: {name!r} is not defined under `{kind}`")
        for kind, known in (("rows", self.rows), ("tasks", self.concept_tasks)):
            for name in getattr(self.concept, kind):
                if name not in known:
                    where = "rows" if kind == "rows" else "concept_tasks"
                    raise ValueError(f"concept.{kind}: {name!r} is not defined under `{where}`")
        for name, task in self.concept_tasks.items():
            if task.base not in self.text_bases | self.class_bases:
                raise ValueError(f"concept_tasks.{name}.base: {task.base!r} is not defined under a kind of bases")
        taken = [*self.tasks, *self.concept_tasks, *self.text_bases, *self.class_bases]
        for name in taken:
            if taken.count(name) > 1:
                raise ValueError(f"{name!r} names two of the tasks and bases: they would share a folder")
        _check_list("seeds", self.seeds)
        return self

    def row(self, task: str, row: str) -> Row:
        """The row's settings with the task's override applied."""
        settings, override = self.rows[row], (self.tasks | self.concept_tasks)[task].overrides.get(row)
        if override is None:
            return settings
        changed = {k: v for k, v in (("lr", override.lr), ("steps", override.steps)) if v is not None}
        return settings.model_copy(update=changed | {"options": settings.options | override.options})


def _check_list(name: str, values: list) -> None:
    if not values:
        raise ValueError(f"{name}: the list is empty")
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ValueError(f"{name}: repeated: {', '.join(repeated)}")


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the whole file; UserError names the first bad key."""
    try:
        return Params.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}") from None
