"""What a model forgot, inside and outside the prompts used for it, what it kept, and how far it drifted.

Each family of metrics is a function that names its metrics once. In a name the prompt set is lower case, with "_" for a
space.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palinode.classifiers.concept_classifiers import ConceptClassifier, Predictions
from palinode.core import estimate
from palinode.core.errors import Absent
from palinode.core.estimate import Metric
from palinode.data.captions import Caption
from palinode.data.prompt_sets import ANCHOR, NULL, SEED_NAMES, TRAINING
from palinode.metrics import integrity, pieces, quality
from palinode.metrics.features import Backbone, JudgeBackbone
from palinode.metrics.integrity import Distance
from palinode.metrics.pieces import Metrics
from palinode.metrics.second_judge import TargetLooker

NEW_PROMPTS = ("new attributes", "new templates", "synonyms")  # of the target alone, none of which unlearning saw
KID_SUBSET = 64
NO_TRUNK = "no AlexNet checkpoint is set (lpips_trunk)"


@dataclass(frozen=True)
class Context:
    """What a cell is evaluated on; all dictionaries are by prompt set.

    samples, base, other_seed: uint8 [N, H, W, C] of this model, of the original from the same noise, and of the
    original from another noise; oracle: of the retrained model, or the reason why there is none; prompts: what was
    asked for; forget, retain: names of the prompt sets; real: uint8 [M, H, W, C], a real picture for each retained
    prompt but the null prompts, or why there are none; classifier, second, lpips: or why they are absent; second: the
    second judge, looking for the target; second_network: of a second integrity; bootstrap: number of replicates.
    """

    samples: dict[str, np.ndarray]
    base: dict[str, np.ndarray]
    other_seed: dict[str, np.ndarray]
    oracle: dict[str, np.ndarray] | str
    prompts: dict[str, list[Caption]]
    forget: list[str]
    retain: list[str]
    real: np.ndarray | str
    classifier: ConceptClassifier | str
    second: TargetLooker | str
    second_network: Backbone
    bootstrap: int = estimate.REPLICATES
    lpips: Distance | str = NO_TRUNK

    @property
    def networks(self) -> tuple[str, ...]:
        """Whose distances are measured: LPIPS where it was asked for, and where there is no judge."""
        without_judge = isinstance(self.classifier, str)
        return ("judge", "lpips_alex") if without_judge or callable(self.lpips) else ("judge",)

    @property
    def asked(self) -> list[str]:
        """The retained prompt sets that ask for something."""
        return [name for name in self.retain if name != NULL]

    @property
    def compared(self) -> list[str]:
        """The retained prompt sets whose integrity is measured by the second network too."""
        return [name for name in self.asked if name != ANCHOR]

    @cached_property
    def judge(self) -> JudgeBackbone:
        """The features behind the classifier; raises Absent where there is none."""
        return JudgeBackbone(self.present_classifier.judge)

    @property
    def present_classifier(self) -> ConceptClassifier:
        """Raises Absent where there is none."""
        if isinstance(self.classifier, str):
            raise Absent(self.classifier)
        return self.classifier

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Of the samples; raises Absent without a classifier."""
        classifier = self.present_classifier
        return {name: classifier(images, self.prompts[name]) for name, images in self.samples.items()}

    @cached_property
    def misses(self) -> dict[str, np.ndarray]:
        """Where the second judge does not see the target, of the forget sets; raises Absent without one."""
        if isinstance(self.second, str):
            raise Absent(self.second)
        return {name: self.second.misses(self.samples[name], self.prompts[name]) for name in self.forget}

    def distance(self, network: str) -> Distance:
        """Of pairs of pictures; raises Absent where the network is absent."""
        if network == "judge":
            return integrity.lpips_style(self.judge)
        if network == self.second_network.name:
            return integrity.lpips_style(self.second_network)
        if isinstance(self.lpips, str):
            raise Absent(self.lpips)
        return self.lpips

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Of the samples under `asked`, float32 [N, d]."""
        return {name: self.judge.features(self.samples[name]) for name in self.asked}

    @cached_property
    def other_features(self) -> dict[str, np.ndarray]:
        """The same of the original model's pictures from another noise."""
        return {name: self.judge.features(self.other_seed[name]) for name in self.asked}


def evaluate(context: Context) -> Metrics:
    """All metrics of a cell."""
    metrics: Metrics = {}
    for name in context.forget:
        metrics |= measure_forgetting(context, name)
        metrics |= measure_agreement(context, name)
    if all(name in context.forget for name in NEW_PROMPTS):
        metrics |= measure_gap(context)
    metrics |= measure_target(context)
    for name in context.asked:
        metrics |= measure_retained(context, name)
    metrics |= measure_kept(context)
    metrics |= measure_realism(context)
    for network in context.networks:
        for name in [*context.retain, *context.forget]:
            metrics |= measure_drift(context, network, name)
    for name in context.compared:
        metrics |= measure_integrity(context, context.second_network.name, name)
    return metrics


def measure_forgetting(context: Context, name: str) -> Metrics:
    """ua_<prompt set>: unlearning accuracy, the share of pictures in which the judge does not see the target."""
    return pieces.measure([f"ua_{_slug(name)}"], lambda: [_unlearning_accuracy(context, name)])


def measure_agreement(context: Context, name: str) -> Metrics:
    """ua_<prompt set>_second, the same by the second judge; judges_agree_<prompt set>, the share of pictures in which
    both see the target or neither does."""

    def compute() -> list[Metric]:
        second = context.misses[name]
        first = context.predictions[name].missed
        return [estimate.from_rate(hits, context.bootstrap, _stream(name)) for hits in (second, first == second)]

    slug = _slug(name)
    return pieces.measure([f"ua_{slug}_second", f"judges_agree_{slug}"], compute)


def measure_gap(context: Context) -> Metrics:
    """ua_gap: unlearning accuracy under the training prompts minus its mean under new prompts of the target."""

    def compute() -> list[Metric]:
        inside = _unlearning_accuracy(context, TRAINING)
        outside = [_unlearning_accuracy(context, name) for name in NEW_PROMPTS]
        value = _value(inside) - sum(_value(rate) for rate in outside) / len(outside)
        replicates = inside.replicates - sum(rate.replicates for rate in outside) / len(outside)
        return [estimate.from_replicates(value, replicates, inside.n)]

    return pieces.measure(["ua_gap"], compute)


def measure_target(context: Context) -> Metrics:
    """target_probability, target_entropy: what the judge makes of pictures under the training prompts."""

    def compute() -> list[Metric]:
        predictions = context.predictions[TRAINING]
        samples = (predictions.target_probability, predictions.entropy)
        return [estimate.from_samples(values, context.bootstrap) for values in samples]

    return pieces.measure(["target_probability", "target_entropy"], compute)


def measure_retained(context: Context, name: str) -> Metrics:
    """Three metrics of a retained prompt set.

    accuracy_<set>: share of pictures that show what was asked for (IRA for near and far, CRA for the other domain);
    kid_<set>_judge: against the original model's pictures from another noise; alignment_<set>: share of pictures that
    their own caption fits better than any other of the set, where captions compare.
    """
    prompts = context.prompts[name]
    rivals = find_rivals(prompts)

    def accuracy() -> list[Metric]:
        return [estimate.from_rate(context.predictions[name].correct, context.bootstrap, _stream(name))]

    def kid() -> list[Metric]:
        samples = context.features[name]
        others = context.other_features[name]
        subset = min(KID_SUBSET, len(samples), len(others))
        return [quality.kid(samples, others, subset, context.bootstrap)]

    def alignment() -> list[Metric]:
        scores = context.present_classifier.score_captions(context.samples[name], list(rivals.values()))
        own = [list(rivals).index((caption.concepts, caption.style)) for caption in prompts]
        return [estimate.from_rate(scores.argmax(1) == np.array(own), context.bootstrap, _stream(name))]

    slug = _slug(name)
    metrics = pieces.measure([f"accuracy_{slug}"], accuracy) | pieces.measure([f"kid_{slug}_judge"], kid)
    return metrics | (pieces.measure([f"alignment_{slug}"], alignment) if rivals else {})


def find_rivals(prompts: list[Caption]) -> dict[tuple[tuple[str, ...], str | None], Caption]:
    """One caption for each thing and style that a prompt set asks for; none where they do not compare.

    That is where all ask for the same, or where some name a style and some do not.
    """
    rivals = {(caption.concepts, caption.style): caption for caption in prompts}
    mixed = len({style is None for _, style in rivals}) == 2
    return {} if len(rivals) == 1 or mixed else rivals


def measure_kept(context: Context) -> Metrics:
    """All retained prompt sets but the null prompt together, against the original model's pictures from another noise:
    fid_kept_judge, precision_kept_judge, recall_kept_judge."""

    def compute() -> list[Metric]:
        samples = np.concatenate(list(context.features.values()))
        others = np.concatenate(list(context.other_features.values()))
        precision, recall = quality.precision_recall(samples, others, context.bootstrap)
        return [quality.fid(samples, others, context.bootstrap), precision, recall]

    return pieces.measure(["fid_kept_judge", "precision_kept_judge", "recall_kept_judge"], compute)


def measure_realism(context: Context) -> Metrics:
    """The same against real pictures: kid_kept_real_judge, fid_kept_real_judge."""

    def compute() -> list[Metric]:
        if isinstance(context.real, str):
            raise Absent(context.real)
        samples = np.concatenate(list(context.features.values()))
        real = context.judge.features(context.real)
        subset = min(KID_SUBSET, len(samples))
        return [
            quality.kid(samples, real, subset, context.bootstrap),
            quality.fid(samples, real, context.bootstrap),
        ]

    return pieces.measure(["kid_kept_real_judge", "fid_kept_real_judge"], compute)


def measure_drift(context: Context, network: str, name: str) -> Metrics:
    """On the same noise and one prompt set: integrity and drift against the original, drift against the oracle.

    integrity_<set>_<network>, drift_<set>_<network>, oracle_drift_<set>_<network>. The seed ceiling is the original
    from another noise.
    """

    def from_oracle() -> list[Metric]:
        distance = context.distance(network)
        if isinstance(context.oracle, str):
            raise Absent(context.oracle)
        distances = integrity.measure_pairs(distance, context.oracle[name], context.samples[name])
        return [integrity.estimate_drift(distances, context.bootstrap)]

    oracle = pieces.measure([f"oracle_drift_{_slug(name)}_{network}"], from_oracle)
    return measure_integrity(context, network, name) | oracle


def measure_integrity(context: Context, network: str, name: str) -> Metrics:
    """Against the original alone: integrity_<set>_<network>, drift_<set>_<network>."""

    def compute() -> list[Metric]:
        distance = context.distance(network)
        distances = integrity.measure_pairs(distance, context.base[name], context.samples[name])
        ceiling = integrity.measure_pairs(distance, context.base[name], context.other_seed[name])
        return [
            integrity.estimate_integrity(distances, ceiling, context.bootstrap),
            integrity.estimate_drift(distances, context.bootstrap),
        ]

    end = f"{_slug(name)}_{network}"
    return pieces.measure([f"integrity_{end}", f"drift_{end}"], compute)


def _unlearning_accuracy(context: Context, name: str) -> Metric:
    return estimate.from_rate(context.predictions[name].missed, context.bootstrap, _stream(name))


def _stream(name: str) -> tuple[str, ...]:
    """The bootstrap weights of a prompt set."""
    return (SEED_NAMES.get(name, name),)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")


def _value(metric: Metric) -> float:
    """Of a rate, which is never absent."""
    assert metric.value is not None
    return metric.value
