"""Attacks on unlearned concepts.

Learning rates are not searched for: a search would see the judge.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator

from palinode.params.fields import Positive, Rate, Settings


def _reached(steps: list[int]) -> list[int]:
    """Steps must ascend; the training loop stops for a snapshot at every twentieth of the last."""
    if not steps or steps != sorted(set(steps)):
        raise ValueError(f"must ascend, and not be empty (got {steps})")
    unit = max(1, steps[-1] // 20)
    for step in steps:
        if step % unit:
            raise ValueError(f"{step} is not a multiple of {unit}, a twentieth of the last")
    return steps


Steps = Annotated[list[Positive], AfterValidator(_reached)]  # after how many pictures are judged; the last ends it


class Relearn(Settings):
    steps: Steps = [5, 10, 20, 50, 100]
    lr: Rate = 1e-4
    batch: Positive = 16


class PromptTuning(Relearn):
    steps: Steps = [200]
    lr: Rate = 1e-2  # this and the number are UnlearnDiffAtk's
    vectors: Positive = 3  # a class has one


Attack = Literal["relearn", "prompt-tuning"]


class Attacks(Settings):
    """Which tasks and rows of the kind `concept` to attack, and how; base and oracle are attacked with them."""

    tasks: list[str] = []
    rows: list[str] = []
    attacks: list[Attack] = ["relearn", "prompt-tuning"]
    relearn: Relearn = Relearn()
    prompt_tuning: PromptTuning = PromptTuning()

    def budget(self, attack: Attack) -> Relearn:
        """What an attack may spend."""
        return self.relearn if attack == "relearn" else self.prompt_tuning
