"""All metrics of one cell of an images task, in pieces that are computed, kept and restored one by one.

A piece names its metrics once. Where an input is missing, `Absent` says why, and all of the piece's metrics are
absent with that reason. Whatever two pieces share is computed once, when first asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np

from palinode.core import estimate
from palinode.core.errors import Absent, UserError
from palinode.core.estimate import Metric
from palinode.core.image_set import ImageSet
from palinode.core.scratch import Checkpoint, Scratch
from palinode.metrics import features, forgetting, integrity, likelihood, nearest, pieces, quality
from palinode.metrics.features import Backbone
from palinode.metrics.integrity import Distance
from palinode.metrics.pieces import Metrics
from palinode.metrics.sscd import SSCD, as_rgb
from palinode.models.denoiser import Denoiser
from palinode.params.image_tasks import Evaluate

Subset = Literal["forget", "held"]  # whose likelihood is measured; it names the noise, too
Sampled = Literal["samples", "reference"]

NO_MODEL = "the row has samples but no model"
NO_SSCD = "no file of SSCD is set (evaluate.sscd)"
NO_TRUNK = "no AlexNet checkpoint is set (evaluate.lpips_trunk); an untrained backbone is refused"
NETWORKS = ("judge", "efficientnet_lite0")
DISTANCES = ("judge", "ssim", "lpips_alex")
SUBSETS: tuple[Subset, ...] = ("forget", "held")


@dataclass
class Context:
    """What a cell is evaluated on.

    load_model: called when a piece needs the cell's model, None for the row `real`; samples, base, oracle, reference,
    retain, forget: uint8 [N, H, W, C], where sample i of samples, base and oracle comes from the same noise; oracle may
    be the reason why there is none; hit_distance: of the task's metadata.json; cost: cost.json, or the reason why there
    is none; judge: folder, or None with judge_reason; scratch: takes finished and half-done work, None keeps nothing.
    """

    load_model: Callable[[], Denoiser] | None
    samples: np.ndarray
    base: np.ndarray
    oracle: np.ndarray | str
    reference: np.ndarray
    retain: ImageSet
    forget: np.ndarray
    hit_distance: float
    cost: dict[str, int] | str
    settings: Evaluate
    judge: Path | None = None
    judge_reason: str = "the task has no judge"
    device: str = "cpu"
    scratch: Scratch | None = None
    _features: dict[tuple[str, Sampled], np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def model(self) -> Denoiser:
        """Raises Absent where there is none."""
        if self.load_model is None:
            raise Absent(NO_MODEL)
        return self.load_model()

    @cached_property
    def networks(self) -> tuple[dict[str, Backbone], dict[str, str]]:
        return features.load_available(self.judge, self.judge_reason, self.device)

    def network(self, name: str) -> Backbone:
        """The feature network `name`; raises Absent where it is not at hand."""
        networks, reasons = self.networks
        if name not in networks:
            raise Absent(reasons[name])
        return networks[name]

    def distance(self, name: str) -> Distance:
        """The image distance `name` of DISTANCES; raises Absent where it is not at hand."""
        if name == "ssim":
            return integrity.ssim()
        if name == "lpips_alex":
            if self.settings.lpips_trunk is None:
                raise Absent(NO_TRUNK)
            return integrity.lpips_alex(self.settings.lpips_trunk, self.device)
        return integrity.lpips_style(self.network(name))

    def features_of(self, network: Backbone, sampled: Sampled) -> np.ndarray:
        """Features of the samples or the reference (the first `network.limit` of them), computed once."""
        key = (network.name, sampled)
        if key not in self._features:
            images = self.samples if sampled == "samples" else self.reference
            self._features[key] = network.features(images[: network.limit])
        return self._features[key]

    def images_of(self, subset: Subset) -> np.ndarray:
        """The forget images, or as `held` the first held-out images, whose likelihood stands for generalisation."""
        return self.forget if subset == "forget" else self.reference[: self.settings.held]

    def checkpoint(self, name: str) -> Checkpoint:
        """The place for the state of a piece that takes long."""
        return Checkpoint() if self.scratch is None else self.scratch.checkpoint_of(name)

    @cached_property
    def hits(self) -> np.ndarray:
        """Which samples are a forget image, bool [N]."""
        return forgetting.find_hits(self.samples, self.forget, self.hit_distance)

    @cached_property
    def restored(self) -> np.ndarray:
        """The forget images, noised and denoised again: uint8 [K * draws, H, W, C]."""
        settings = self.settings
        checkpoint = self.checkpoint("denoise")
        return forgetting.denoise(
            self.model, self.forget, settings.denoise_from, settings.denoise_draws, settings.batch, checkpoint
        )


@dataclass(frozen=True)
class Piece:
    """Metrics that are computed together; compute: their values, in the order of their names."""

    names: tuple[str, ...]
    compute: Callable[[Context], Sequence[Metric]]

    def __call__(self, context: Context) -> Metrics:
        return pieces.measure(self.names, lambda: self.compute(context))


def measure_forget_rate(context: Context) -> list[Metric]:
    """The share of samples that are a forget image: p in the SISS paper (arXiv 2503.01034), Table 2."""
    return [estimate.from_rate(context.hits, context.settings.bootstrap)]


def measure_copy_rates(context: Context) -> list[Metric]:
    """The shares of samples that copy a training image, and an image to forget; of held-out ones, as false alarms."""
    if reason := nearest.too_large(len(context.retain) * context.forget[0].size):
        raise Absent(reason)
    training = context.retain[np.arange(len(context.retain))]
    held = context.reference[: len(context.samples)]
    of_training, of_forget = nearest.audit(context.samples, training, context.forget)
    false_alarms, _ = nearest.audit(held, training, context.forget)
    return [estimate.from_rate(hits, context.settings.bootstrap) for hits in (of_training, of_forget, false_alarms)]


def measure_nll(context: Context, subset: Subset) -> list[Metric]:
    """Bits per dimension by the probability-flow ODE; see `_summarise` for the interval."""
    settings = context.settings
    model = context.model
    try:
        likelihood.check_schedule(model)
    except UserError as error:
        raise Absent(str(error)) from None
    values = likelihood.nll(
        model,
        context.images_of(subset),
        settings.probes if subset == "forget" else 1,
        settings.ode_steps,
        subset,
        batch=settings.batch,
        checkpoint=context.checkpoint(f"nll_{subset}"),
    )
    return _summarise(values, subset, settings)


def measure_eps_error(context: Context, subset: Subset) -> list[Metric]:
    """Squared error of the noise prediction, per pixel; see `_summarise` for the interval."""
    settings = context.settings
    values = likelihood.eps_error(
        context.model,
        context.images_of(subset),
        settings.eps_levels,
        settings.eps_draws if subset == "forget" else 1,
        subset,
        batch=settings.batch,
    )
    return _summarise(values, subset, settings)


def _summarise(values: np.ndarray, subset: Subset, settings: Evaluate) -> list[Metric]:
    """The mean of values [images, draws].

    Of forget images the interval is over draws, averaged over images as the SISS paper averages its six faces. Of
    held-out ones it is over images, with one draw each.
    """
    samples = values.mean(0) if subset == "forget" else values[:, 0]
    return [estimate.from_samples(samples, settings.bootstrap)]


def measure_denoising(context: Context, name: str) -> list[Metric]:
    """Does the model restore a noised forget image? The interval is over noise draws, averaged over images."""
    by_draw = compare_restored(context, name).reshape(len(context.forget), -1).mean(0)
    return [estimate.from_samples(by_draw, context.settings.bootstrap)]


def compare_restored(context: Context, name: str) -> np.ndarray:
    """How like its original each restored image is, [K * draws]: by SSIM, by SSCD as in the paper, or by features."""
    if name in NETWORKS:
        network = context.network(name)  # first: where there is none, nothing is restored
        return forgetting.compare_with_originals(context.restored, context.forget, network)
    restored = context.restored
    if name == "ssim":
        return 1 - integrity.measure_pairs(integrity.ssim(), restored, forgetting.pair_with(restored, context.forget))
    if context.settings.sscd is None:
        raise Absent(NO_SSCD)
    sscd = SSCD(context.settings.sscd)
    original = forgetting.pair_with(restored, sscd(as_rgb(context.forget)).numpy())
    return (sscd(as_rgb(restored)).numpy() * original).sum(1)


def measure_inception_score(context: Context) -> list[Metric]:
    """Without the samples that are a forget image."""
    settings = context.settings
    logits = context.network("judge").logits(context.samples)
    return [quality.inception_score(logits, ~context.hits, settings.splits, settings.bootstrap)]


def measure_distribution(context: Context, name: str) -> list[Metric]:
    """Fréchet and kernel distance, precision and recall on the features of one network."""
    settings = context.settings
    network = context.network(name)
    samples = context.features_of(network, "samples")
    reference = context.features_of(network, "reference")
    return [
        quality.fid(samples, reference, settings.bootstrap),
        quality.kid(samples, reference, settings.kid_subset, settings.bootstrap),
        *quality.precision_recall(samples, reference, settings.bootstrap),
    ]


def measure_integrity(context: Context, name: str) -> list[Metric]:
    """Integrity and drift: the row's samples against the base model's, same noise."""
    return _compare(context, context.base, context.distance(name), "base")


def measure_oracle_similarity(context: Context) -> list[Metric]:
    """The same against the retrained model's samples."""
    if isinstance(context.oracle, str):
        raise Absent(context.oracle)
    return _compare(context, context.oracle, context.distance("judge"), "oracle")


def _compare(context: Context, target: np.ndarray, distance: Distance, model: str) -> list[Metric]:
    samples = context.samples
    if len(samples) != len(target):
        raise Absent(f"{len(samples)} samples do not pair with {len(target)} of the {model} model")
    replicates = context.settings.bootstrap
    distances = integrity.measure_pairs(distance, samples, target)
    ceiling = integrity.measure_ceiling(distance, target)
    return [
        integrity.estimate_integrity(distances, ceiling, replicates),
        integrity.estimate_drift(distances, replicates),
    ]


PIECES: dict[str, Piece] = {
    "forget_rate": Piece(("forget_rate",), measure_forget_rate),
    "copies": Piece(("copy_rate", "copy_rate_forget", "copy_rate_held"), measure_copy_rates),
    **{
        f"eps_error_{subset}": Piece((f"eps_error_{subset}",), partial(measure_eps_error, subset=subset))
        for subset in SUBSETS
    },
    **{f"nll_{subset}": Piece((f"nll_{subset}",), partial(measure_nll, subset=subset)) for subset in SUBSETS},
    **{
        f"denoise_{name}": Piece((f"denoise_similarity_{name}",), partial(measure_denoising, name=name))
        for name in (*NETWORKS, "ssim", "sscd")
    },
    "inception": Piece(("inception_score_judge",), measure_inception_score),
    **{
        f"distribution_{name}": Piece(
            (f"fid_{name}", f"kid_{name}", f"precision_{name}", f"recall_{name}"),
            partial(measure_distribution, name=name),
        )
        for name in NETWORKS
    },
    **{
        f"integrity_{name}": Piece((f"integrity_{name}", f"drift_{name}"), partial(measure_integrity, name=name))
        for name in DISTANCES
    },
    "oracle": Piece(("oracle_similarity_judge", "oracle_drift_judge"), measure_oracle_similarity),
}


def evaluate_cell(context: Context) -> tuple[Metrics, dict[str, np.ndarray]]:
    """All metrics of a cell, and the features of its samples by network (float32 [N, d]).

    What an interrupted run left in `context.scratch` is not computed again.
    """
    metrics = pieces.measure_cost(context.cost)
    for name, piece in PIECES.items():
        metrics |= pieces.keep(context.scratch, name, partial(piece, context))
    networks, _ = context.networks
    return metrics, {name: context.features_of(network, "samples") for name, network in networks.items()}
