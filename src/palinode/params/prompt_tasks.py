"""A task of the kind `prompts`: which memorized prompts are forgotten, one model each, and how that is measured."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from palinode.params.fields import Beta, Float, Int, Override, Positive, Rate, Settings, UnlearnDefaults

Part = Annotated[Float, Field(gt=0, lt=1)]  # so that neither part is empty


class PromptChoice(Settings):
    """Which of the prompts that `detect` flags, in the order of their scores, the highest first.

    quarters: of all prompts, by a hash of their text, so that tuning and report have prompts of their own.
    """

    quarters: Annotated[list[Literal[0, 1, 2, 3]], Field(min_length=1)] = [0, 1, 2, 3]
    skip: Annotated[Int, Field(ge=0)] = 0  # how many of them are left out
    among: Positive = 12  # how many after them are tried at most, so that two tasks can be kept apart
    count: Positive = 2  # how many prompts are wanted
    threshold: Rate | None = None  # of noise_norm_first; none: what `detect` chose by labels


class PromptSplit(Settings):
    """How pictures to forget and to retain are made of a prompt. Defaults: the SISS paper, where it says.

    rule: "edit", the paper's: all under one modified prompt, whose pictures vary by themselves; "unprompted": half
    under the original and half under the empty prompt, for a base that draws one picture a prompt.
    """

    rule: Literal["edit", "unprompted"] = "edit"
    images: Annotated[Int, Field(ge=2)] = 128
    agree: Part = 0.9  # of labels by 2-means, the least share that copies agree with
    share_range: tuple[Part, Part] = (0.25, 0.9)  # of memorized ones among them, for a prompt to count
    edits: Positive = 20  # modified prompts tried at most
    trial: Positive = 8  # pictures each

    @model_validator(mode="after")
    def _used(self) -> "PromptSplit":
        # By value, not by what was written: a plan file names every field.
        for name in ("edits", "trial"):
            if self.rule == "unprompted" and getattr(self, name) != PromptSplit.model_fields[name].default:
                raise ValueError(f"{name}: no edit is tried under the rule `unprompted`")
        return self


class PromptSample(Settings):
    guidance: Rate = 3.0
    steps: Positive = 25  # DDIM
    count: Positive = 16  # pictures of each prompt in a snapshot
    every: Positive = 5  # steps between two snapshots
    ordinary: Positive = 48  # ordinary prompts that are drawn at the end
    chunk: Positive = 64  # pictures at a time


class PromptUnlearn(UnlearnDefaults):
    """The optimiser; defaults other than batch are the paper's. The steps replace those of the rows."""

    steps: Positive = 35
    batch: Positive = 16
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: Annotated[Float, Field(ge=0)] = 1e-2


class PromptTask(Settings):
    """Forget what a text-to-image base has memorized under some prompts."""

    base: str  # under `base_models`, of the kind text, and searched by `detection`
    choose: PromptChoice = PromptChoice()
    split: PromptSplit = PromptSplit()
    sample: PromptSample = PromptSample()
    trajectory_steps: Positive | None = None  # of the sampler whose trajectories train methods; null: sample.steps
    neighbours: Positive = 10  # retained pictures found for each picture to forget, for methods that need them
    unlearn: PromptUnlearn = PromptUnlearn()
    bootstrap: Positive = 200
    real: Positive = 1024  # pictures that realism compares with
    sscd: str | None = None  # path of the copy descriptor, TorchScript or ONNX; null: copies are judged by pixels
    overrides: dict[str, Override] = {}

    @property
    def steps_of_trajectories(self) -> int:
        return self.trajectory_steps or self.sample.steps

    @model_validator(mode="after")
    def _sound(self) -> "PromptTask":
        low, high = self.split.share_range
        if low >= high:
            raise ValueError(f"split.share_range: the ends must ascend (got {low} and {high})")
        changed = {f"overrides.{row}.steps": block.steps for row, block in self.overrides.items() if block.steps}
        for key, steps in ({"unlearn.steps": self.unlearn.steps} | changed).items():
            unit = max(1, steps // 20)
            if steps % self.sample.every or self.sample.every % unit:
                reason = (
                    f"every {self.sample.every} steps, and snapshots come at multiples of {unit} that divide the steps"
                )
                raise ValueError(f"{key}: pictures are drawn {reason} (got {steps})")
        return self
