"""The one driver of unlearning: every kind of task gives a method its model, its batches and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from palinode.core import seeds
from palinode.core.io import atomic, write_csv, write_json
from palinode.core.scratch import Scratch
from palinode.methods import Method
from palinode.models.denoiser import Denoiser, train_only
from palinode.params.fields import Trainable, Training
from palinode.training.batches import StepBatches
from palinode.training.loop import train


@dataclass(frozen=True)
class Job:
    """What a kind of task hands to the driver.

    model: the one whose weights change; seen: how the method sees it, often the same; batches: what a step sees;
    edit_prompts: prompts that end in the name of the target, of the anchor and of what is kept, for closed forms;
    statistics: saliency and Fisher information, as far as the method needs them; key: parts of all seeds; watch: called
    with the steps done.
    """

    model: Denoiser
    seen: Any
    batches: Callable[[], StepBatches]
    key: tuple
    statistics: dict[str, Tensor]
    edit_prompts: Callable[[], dict[str, list[str]]] | None = None
    watch: Callable[[int], None] | None = None


def unlearn(
    job: Job, method: Method, training: Training, trainable: Trainable, scratch: Scratch, label: str
) -> list[dict]:
    """Let a method change the model in place; the logged history, one line for a closed form."""
    if method.closed_form:
        assert job.edit_prompts is not None
        method.edit(job.model, job.edit_prompts())
        return [{"step": 0}]
    train_only(job.model, trainable)
    method.begin(job.seen, {"seed": seeds.derive(*job.key, "method"), **job.statistics})
    return train(job.seen, method, job.batches(), training, scratch, label, job.watch)


def write_training(folder: Path, history: list[dict], nfe: dict[str, int]) -> None:
    """training.csv with what was logged, and cost.json with the network evaluations and optimiser steps."""
    with atomic(folder) as out:
        out.mkdir(parents=True)
        write_csv(out / "training.csv", history)
        write_json(out / "cost.json", nfe | {"steps": steps_taken(history)})


def steps_taken(history: list[dict]) -> int:
    """How many optimiser steps a history is of, over all prompts of one; none for a closed form."""
    last: dict[int, int] = {}
    for line in history:
        logged = line.keys() - {"step", "prompt"}
        last[line.get("prompt", 0)] = line["step"] + 1 if logged else 0
    return sum(last.values())
