"""What became of memorized prompts: success as the SISS paper counts it, and what else changed.

In "Data Unlearning in Diffusion Models" (SISS; Alberti et al., ICLR 2025, arXiv 2503.01034), section on Stable
Diffusion, a prompt is a success when none of its pictures is memorized at the end and quality holds throughout. Here
quality is looked at in every snapshot.

This module sees what it needs of a task through the protocols below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from palinode.core import estimate
from palinode.core.contact_sheet import sheet
from palinode.core.errors import Absent
from palinode.core.estimate import Metric
from palinode.metrics import integrity, pieces
from palinode.metrics.integrity import Distance
from palinode.metrics.pieces import Metrics

SHOWN = 8  # noises on the strips


class Snapshot(Protocol):
    """What a model drew under the versions of a prompt: pictures uint8 [versions, N, H, W, C], norms [versions, N]."""

    @property
    def pictures(self) -> np.ndarray: ...

    @property
    def norms(self) -> np.ndarray: ...


class Prompt(Protocol):
    """A memorized prompt; picture: the number of the fixed picture that it copies, where that is known."""

    @property
    def text(self) -> str: ...

    @property
    def picture(self) -> int: ...


class Clusters(Protocol):
    """What tells memorized pictures from others."""

    def memorized(self, images: np.ndarray) -> np.ndarray: ...


class Subject(Protocol):
    """A prompt that was to be forgotten; reference: the medoid of what the base draws under it, uint8 [H, W, C]."""

    @property
    def prompt(self) -> Prompt: ...

    @property
    def clusters(self) -> Clusters: ...

    @property
    def reference(self) -> np.ndarray: ...


class Quality(Protocol):
    """How good pictures look: bool or float [N].

    metric: its name, with {} for the version of the prompt; reason: why it cannot be measured, or "".
    """

    metric: str
    reason: str

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class GroundTruth(Protocol):
    """What is known of the base.

    copy_metric: what the share of copies is called; distances: for integrity, by name of the network.
    """

    copy_metric: str

    @property
    def quality(self) -> Quality: ...

    @property
    def distances(self) -> dict[str, Distance]: ...

    def copies(self, images: np.ndarray, picture: int, reference: np.ndarray) -> np.ndarray: ...

    def copies_own(self, images: np.ndarray, subjects: Sequence[Subject]) -> np.ndarray: ...


@dataclass(frozen=True)
class Context:
    """What the models of a task are evaluated by.

    versions: names of a prompt's versions, in the order of the snapshots; least_quality: what counts as quality;
    other_prompts: captions of memories, of which the subjects' own count only where they were not forgotten;
    base_ordinary: the base's pictures under ordinary prompts from two noises, uint8 [2, N, H, W, C]; bootstrap: number
    of replicates.
    """

    subjects: Sequence[Subject]
    versions: Sequence[str]
    least_quality: float
    other_prompts: Sequence[str]
    base_ordinary: np.ndarray
    truth: GroundTruth
    bootstrap: int = estimate.REPLICATES


@dataclass(frozen=True)
class Observation:
    """The pictures of one snapshot under one version: memorized, copies bool [N], norms [N]; quality [N], or None where
    it cannot be measured."""

    memorized: np.ndarray
    copies: np.ndarray
    norms: np.ndarray
    quality: np.ndarray | None


def observe(subject: Subject, snapshot: Snapshot, truth: GroundTruth) -> list[Observation]:
    """One observation a version of the prompt."""
    return [
        Observation(
            memorized=subject.clusters.memorized(images),
            copies=truth.copies(images, subject.prompt.picture, subject.reference),
            norms=norms,
            quality=None if truth.quality.reason else truth.quality(images),
        )
        for images, norms in zip(snapshot.pictures, snapshot.norms, strict=True)
    ]


def is_success(observations: Sequence[Observation], least_quality: float) -> bool:
    """The paper's success, from the observations of one version in the order of the steps."""
    good = all(
        observation.quality is not None and observation.quality.mean() >= least_quality for observation in observations
    )
    return bool(good and not observations[-1].memorized.any())


def evaluate(
    context: Context, number: int, snapshots: Mapping[int, Snapshot], ordinary: np.ndarray, others: np.ndarray
) -> tuple[Metrics, list[dict[str, object]]]:
    """(metrics, lines of steps.csv) of the model that was to forget subject `number`.

    snapshots: by step, ascending, from step 0 on; ordinary, others: uint8 [., H, W, C], what the model draws at the end
    under the ordinary and under the other prompts.
    """
    subject = context.subjects[number]
    by_step = {step: observe(subject, snapshot, context.truth) for step, snapshot in snapshots.items()}
    metrics: Metrics = {}
    lines: list[dict[str, object]] = []
    for i, version in enumerate(context.versions):
        observations = {step: observed[i] for step, observed in by_step.items()}
        metrics |= _measure_success(context, version, list(observations.values()))
        lines += [_line(subject, version, step, observation) for step, observation in observations.items()]
    metrics |= _measure_ends(context, [by_step[max(by_step)]])
    metrics |= _measure_controls(context, [subject.prompt.text], ordinary, others)
    return metrics, lines


def evaluate_sequential(
    context: Context, snapshots: Sequence[Snapshot], ordinary: np.ndarray, others: np.ndarray
) -> Metrics:
    """Of the one model that was to forget all subjects in sequence: what it draws at the end, all subjects together.

    snapshots: one a subject; ordinary, others: as in `evaluate`.
    """
    ends = [
        observe(subject, snapshot, context.truth) for subject, snapshot in zip(context.subjects, snapshots, strict=True)
    ]
    forgotten = [subject.prompt.text for subject in context.subjects]
    return _measure_ends(context, ends) | _measure_controls(context, forgotten, ordinary, others)


def _measure_success(context: Context, version: str, observations: Sequence[Observation]) -> Metrics:
    """success_<version>: of one prompt, hence 0 or 1."""

    def compute() -> list[Metric]:
        if context.truth.quality.reason:
            raise Absent(context.truth.quality.reason)
        success = np.array([is_success(observations, context.least_quality)])
        return [estimate.from_rate(success, context.bootstrap, ("prompts",))]

    return pieces.measure([f"success_{version}"], compute)


def _measure_ends(context: Context, ends: Sequence[Sequence[Observation]]) -> Metrics:
    """Of the pictures after the last step, by version of the prompt; ends: the observations of each prompt.

    memorized_<version>, copies_<version> (or as the ground truth calls copies), noise_norm_<version>, and the quality.
    """
    truth = context.truth
    metrics: Metrics = {}
    for i, version in enumerate(context.versions):
        observations = [observed[i] for observed in ends]
        memorized = np.concatenate([observation.memorized for observation in observations])
        copies = np.concatenate([observation.copies for observation in observations])
        norms = np.concatenate([observation.norms for observation in observations])
        metrics[f"memorized_{version}"] = estimate.from_rate(memorized, context.bootstrap)
        metrics[f"{truth.copy_metric}_{version}"] = estimate.from_rate(copies, context.bootstrap)
        metrics[f"noise_norm_{version}"] = estimate.from_samples(norms, context.bootstrap)
        metrics[truth.quality.metric.format(version)] = _estimate_quality(context, observations)
    return metrics


def _estimate_quality(context: Context, observations: Sequence[Observation]) -> Metric:
    if context.truth.quality.reason:
        return estimate.absent(context.truth.quality.reason)
    values = np.concatenate([observation.quality for observation in observations if observation.quality is not None])
    if values.dtype == bool:
        return estimate.from_rate(values, context.bootstrap)
    return estimate.from_samples(values, context.bootstrap)


def _measure_controls(context: Context, forgotten: list[str], ordinary: np.ndarray, others: np.ndarray) -> Metrics:
    """copies_others (or as the ground truth calls copies): share of pictures under the other prompts that copy their
    own picture, without the forgotten; integrity_ordinary_<network>, by each network: of ordinary prompts, against the
    base's pictures from the same noise."""
    truth = context.truth

    def copies() -> list[Metric]:
        hits = truth.copies_own(others, context.subjects)[~np.isin(context.other_prompts, forgotten)]
        if not len(hits):
            raise Absent("the task has no other memorized prompt")
        return [estimate.from_rate(hits, context.bootstrap, ("others",))]

    def change(distance: Distance) -> list[Metric]:
        first, second = context.base_ordinary
        distances = integrity.measure_pairs(distance, first, ordinary)
        ceiling = integrity.measure_pairs(distance, first, second)
        return [integrity.estimate_integrity(distances, ceiling, context.bootstrap)]

    metrics = pieces.measure([f"{truth.copy_metric}_others"], copies)
    for network, distance in truth.distances.items():
        metrics |= pieces.measure([f"integrity_ordinary_{network}"], partial(change, distance))
    return metrics


def _line(subject: Subject, version: str, step: int, observation: Observation) -> dict[str, object]:
    """A line of steps.csv: the means of one snapshot."""
    line: dict[str, object] = {
        "prompt": subject.prompt.text,
        "version": version,
        "step": step,
        "memorized": float(observation.memorized.mean()),
        "copies": float(observation.copies.mean()),
        "norm": float(observation.norms.mean()),
    }
    return line if observation.quality is None else line | {"quality": float(observation.quality.mean())}


def strips(snapshots: Mapping[int, Snapshot]) -> np.ndarray:
    """One line a step: SHOWN noises under each version of the prompt, one version beside the other; uint8 [h, w, C]."""
    images = [pictures[:SHOWN] for snapshot in snapshots.values() for pictures in snapshot.pictures]
    versions = len(next(iter(snapshots.values())).pictures)
    return sheet(np.concatenate(images), versions * len(images[0]))
