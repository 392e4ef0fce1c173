"""What a task of memorized prompts trains on: prompts, with their pictures to forget and to retain, in files.

out/tasks/<task>/: prompts.json (prompts that count, refused ones, control prompts) and training.npz (latents). What
metrics compare with lies in a file of its own (`comparisons.py`), so that a change in what is measured does not train
anything again.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode.core.io import read_arrays, read_json, write_arrays, write_json
from palinode.memorization.control_prompts import ControlPrompts

ARRAYS = ("retain", "forget", "neighbours")


@dataclass(frozen=True)
class MemorizedPrompt:
    """A prompt that counts.

    trained_on: the prompt that training conditions on; picture: the number of the fixed picture that it copies, or -1;
    edits: [[modified prompt, share of copies]] of all that were tried; memorized: share of the pictures by 2-means;
    agrees: share of them on which the ground truth agrees.
    """

    text: str
    kind: str
    score: float
    modified: str
    trained_on: str
    picture: int
    edits: list
    memorized: dict
    agrees: dict

    @property
    def versions(self) -> list[str]:
        """In the order of `prompt_sampler.VERSIONS`."""
        return [self.modified, self.text]


@dataclass(frozen=True)
class TrainingTarget:
    """What training sees of a prompt.

    retain, forget: latents float32 [N, C, h, w]; neighbours: rows of `retain` nearest to each of `forget`, int64
    [N, K], the nearest first.
    """

    prompt: MemorizedPrompt
    retain: Tensor
    forget: Tensor
    neighbours: Tensor


@dataclass(frozen=True)
class PromptFacts:
    """What is known of a task's prompts.

    refused: [{text, kind, score, reason}]; reason: why no prompt counts, or ""; threshold: of the score
    that flags prompts, None where there is none.
    """

    prompts: list[MemorizedPrompt]
    refused: list[dict]
    reason: str
    threshold: float | None
    controls: ControlPrompts


def save(folder: Path, facts: PromptFacts, targets: list[TrainingTarget]) -> None:
    """Write prompts.json and training.npz."""
    write_json(folder / "prompts.json", asdict(facts))
    arrays: dict[str, np.ndarray] = {}
    for i, target in enumerate(targets):
        arrays |= {f"{part}_{i}": getattr(target, part).numpy() for part in ARRAYS}
    write_arrays(folder / "training.npz", arrays)


def read_facts(folder: Path) -> PromptFacts:
    """What is known of the prompts of a prepared task."""
    facts = read_json(folder / "prompts.json")
    prompts = [MemorizedPrompt(**entry) for entry in facts.pop("prompts")]
    controls = ControlPrompts(**facts.pop("controls"))
    return PromptFacts(prompts=prompts, controls=controls, **facts)


def read_training(folder: Path, facts: PromptFacts) -> list[TrainingTarget]:
    """What training sees of every prompt."""
    arrays = read_arrays(folder / "training.npz")
    targets = []
    for i, prompt in enumerate(facts.prompts):
        own = {part: torch.from_numpy(arrays[f"{part}_{i}"]) for part in ARRAYS}
        targets.append(TrainingTarget(prompt, **own))
    return targets
