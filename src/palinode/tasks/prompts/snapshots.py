"""What one model drew on its way: snapshots of each prompt by step, and control samples at the end; in two files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palinode.core.io import atomic, read_arrays, read_json, write_arrays, write_json
from palinode.memorization.prompt_sampler import Snapshot
from palinode.params import SEQUENTIAL
from palinode.tasks.prompts.targets import PromptFacts
from palinode.tasks.subjects import check_subject


@dataclass(frozen=True)
class Snapshots:
    """by_prompt: {number of the prompt: {steps done: snapshot}}; ordinary, others: control samples, [N, H, W, C]."""

    by_prompt: dict[int, dict[int, Snapshot]]
    ordinary: np.ndarray
    others: np.ndarray

    def save(self, folder: Path) -> None:
        """snapshots.json says which there are, snapshots.npz holds them."""
        arrays = {"ordinary": self.ordinary, "others": self.others}
        for number, by_step in self.by_prompt.items():
            for step, snapshot in by_step.items():
                arrays |= {f"pictures_{number}_{step}": snapshot.pictures, f"norms_{number}_{step}": snapshot.norms}
        steps = {str(number): list(by_step) for number, by_step in self.by_prompt.items()}
        with atomic(folder) as out:
            write_arrays(out / "snapshots.npz", arrays)
            write_json(out / "snapshots.json", {"steps": steps})

    @classmethod
    def load(cls, folder: Path) -> "Snapshots":
        """What `save` wrote."""
        arrays = read_arrays(folder / "snapshots.npz")
        by_prompt: dict[int, dict[int, Snapshot]] = {}
        for number, steps in read_json(folder / "snapshots.json")["steps"].items():
            by_prompt[int(number)] = {
                step: Snapshot(arrays[f"pictures_{number}_{step}"], arrays[f"norms_{number}_{step}"]) for step in steps
            }
        return cls(by_prompt, arrays["ordinary"], arrays["others"])


def chosen_prompts(facts: PromptFacts, subject: str) -> list[int]:
    """The numbers of the prompts that a subject is made of; Absent where there is none."""
    count = len(facts.prompts)
    if subject != SEQUENTIAL:
        return [check_subject(subject, count, facts.reason)]
    check_subject("0", count, facts.reason)
    return list(range(count))
