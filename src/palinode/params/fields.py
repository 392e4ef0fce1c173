"""What every part of the parameters is made of: checked numbers, blocks, and how training is set."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


# A string that is a valid number is read as that number: `dvc exp run -S lr=3e-5` writes `3e-05`, which YAML calls a
# string.
Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Positive = Annotated[Int, Field(ge=1)]
Natural = Annotated[Int, Field(ge=0)]
Rate = Annotated[Float, Field(gt=0)]
Share = Annotated[Float, Field(ge=0, le=1)]

DataPath = Annotated[str, Field(pattern="^data/")]  # what DVC watches


CorpusName = Literal["emoji", "web"]  # what text-to-image bases are trained on (data/scenes.py)
Known = Literal["emoji", "web", "list"]  # what is known of such a base: all of a corpus, or what a user lists


class Settings(BaseModel):
    """A block of parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class JudgeData(Settings):
    """Labelled images for the judge; labels lie beside each file as `<name>-labels.npy`."""

    train: str
    test: str
    accuracy: Share = 0.98  # on the test images; below it the judge cannot be trusted


class Ema(Settings):
    limit: Annotated[Float, Field(ge=0, lt=1)] = 0.9999
    inv_gamma: Rate = 1.0
    power: Rate = 0.75


Beta = Annotated[Float, Field(ge=0, lt=1)]


class UnlearnDefaults(Settings):
    """What every row of a task shares: everything of `Training` that unlearning uses, except steps and lr.

    Defaults: the SISS paper's optimiser.
    """

    batch: Positive = 64  # images a micro-batch, from each of the sets a method uses
    accumulate: Positive = 1  # micro-batches an optimiser step
    betas: tuple[Beta, Beta] = (0.95, 0.999)
    weight_decay: Annotated[Float, Field(ge=0)] = 1e-6
    clip: Rate | None = 1.0  # global gradient norm; null: as it is
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False


class Training(UnlearnDefaults):
    """One call of the training loop."""

    steps: Positive
    lr: Rate
    warmup: Natural = 0
    decay: Literal["constant", "cosine"] = "constant"
    ema: Ema | None = None


# others: linear and convolutional layers that are not of the cross-attention
Trainable = Literal["all", "cross-attention", "cross-attention-kv", "others"]


class Override(Settings):
    """What one task changes in one row."""

    lr: Rate | None = None
    steps: Positive | None = None
    trainable: Trainable | None = None
    options: dict = {}
