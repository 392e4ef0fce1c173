"""Attacks on unlearned concepts."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from palinode.params.fields import Positive, Rate, Settings, Training


class Attack(Settings):
    """A budget, the same for every row. The learning rates are not searched for: a search would see the judge."""

    steps: Annotated[list[Positive], Field(min_length=1)]  # after how many pictures are judged; the last one ends it
    lr: Rate
    batch: Positive = 16  # pictures a step

    @field_validator("steps")
    @classmethod
    def _reached(cls, steps: list[int]) -> list[int]:
        """The training loop stops for a look at every twentieth of its steps."""
        if steps != sorted(set(steps)):
            raise ValueError(f"must ascend (got {steps})")
        unit = max(1, steps[-1] // 20)
        for step in steps:
            if step % unit:
                raise ValueError(f"{step} is not a multiple of {unit}, a twentieth of the last")
        return steps

    @property
    def training(self) -> Training:
        """The same for the training loop."""
        return Training(steps=self.steps[-1], lr=self.lr, batch=self.batch)


class Relearn(Attack):
    """Fine-tune on the target's pictures."""

    steps: Annotated[list[Positive], Field(min_length=1)] = [5, 10, 20, 50, 100]
    lr: Rate = 1e-4


class Prefix(Attack):
    """Optimise free embeddings in front of the target's prompts. Number and learning rate: UnlearnDiffAtk's."""

    steps: Annotated[list[Positive], Field(min_length=1)] = [200]
    lr: Rate = 1e-2
    vectors: Positive = 3  # a class has one


class Robustness(Settings):
    """Which tasks and rows of the family concept to attack, and how; base and oracle are attacked with them."""

    tasks: list[str] = []
    rows: list[str] = []
    attacks: list[Literal["relearn", "prefix"]] = ["relearn", "prefix"]
    relearn: Relearn = Relearn()
    prefix: Prefix = Prefix()
