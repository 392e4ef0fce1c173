"""What metrics compare the pictures of a task's prompts with: evaluation.npz of out/tasks/<task>/."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palinode.core.io import read_arrays, write_arrays
from palinode.memorization.prompt_sampler import Snapshot
from palinode.memorization.splitting import Clusters
from palinode.tasks.prompts.targets import MemorizedPrompt, PromptFacts


@dataclass(frozen=True)
class Comparison:
    """One prompt's.

    clusters: what tells memorized pictures from others; reference: the medoid of what the base draws under the prompt,
    uint8 [H, W, C]; start: the base's snapshot.
    """

    prompt: MemorizedPrompt
    clusters: Clusters
    reference: np.ndarray
    start: Snapshot


@dataclass(frozen=True)
class Comparisons:
    """A task's.

    ordinary: the base's pictures of ordinary prompts from two noises, uint8 [2, N, H, W, C]; least_quality: what counts
    as quality.
    """

    prompts: list[Comparison]
    ordinary: np.ndarray
    least_quality: float


def save(folder: Path, comparisons: Comparisons) -> None:
    """Write evaluation.npz."""
    arrays = {"ordinary": comparisons.ordinary, "least_quality": np.array(comparisons.least_quality)}
    for i, comparison in enumerate(comparisons.prompts):
        arrays |= {f"centres_{i}": comparison.clusters.centres, f"reference_{i}": comparison.reference}
        arrays |= {f"start_{i}": comparison.start.pictures, f"norms_{i}": comparison.start.norms}
    write_arrays(folder / "evaluation.npz", arrays)


def read(folder: Path, facts: PromptFacts) -> Comparisons:
    """What `save` wrote."""
    arrays = read_arrays(folder / "evaluation.npz")
    comparisons = []
    for i, prompt in enumerate(facts.prompts):
        start = Snapshot(arrays[f"start_{i}"], arrays[f"norms_{i}"])
        comparisons.append(Comparison(prompt, Clusters(arrays[f"centres_{i}"]), arrays[f"reference_{i}"], start))
    return Comparisons(comparisons, arrays["ordinary"], arrays["least_quality"].item())
