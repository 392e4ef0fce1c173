"""All metrics of one cell, in pieces that can be computed, kept and restored one by one.

Every piece is a function Context -> {name: Metric}. A piece whose input is missing returns the names it would have
filled, absent with the reason. Whatever two pieces share is computed once, when first asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from palinode.errors import UserError
from palinode.metrics import features, forgetting, integrity, likelihood, nearest, quality, record
from palinode.metrics.record import Metric
from palinode.metrics.store import Store
from palinode.models import Diffuser

Metrics = dict[str, Metric]
NO_MODEL = "the row has samples but no model"
NO_TRUNK = "no AlexNet checkpoint is set (evaluate.lpips_trunk); an untrained backbone is refused"


@dataclass
class Context:
    """What a cell is evaluated on.

    model: loads the cell's model when a piece needs it, None for the row `real`; samples, base, oracle, reference,
    retain, forget: uint8 [N, H, W, C], where sample i of samples, base and oracle comes from the same noise; oracle:
    or the reason why there is none; facts: facts.json of the task; cost: cost.json, or the reason why there is none;
    settings: the task's `evaluate` block; judge: folder, or None with judge_reason; store: takes finished and half-done
    work.
    """

    model: Callable[[], Diffuser] | None
    samples: np.ndarray
    base: np.ndarray
    oracle: np.ndarray | str
    reference: np.ndarray
    retain: np.ndarray
    forget: np.ndarray
    facts: dict
    cost: dict | str
    settings: object
    judge: Path | None = None
    judge_reason: str = "the task has no judge"
    device: str = "cpu"
    store: Store = field(default_factory=Store)
    _features: dict = field(default_factory=dict, repr=False)

    @cached_property
    def diffuser(self) -> Diffuser:
        return self.model()

    @cached_property
    def networks(self) -> tuple[dict[str, features.Backbone], dict[str, str]]:
        return features.available(self.judge, self.judge_reason, self.device)

    @property
    def held(self) -> np.ndarray:
        """The images whose likelihood stands for generalisation: the first `held` of the reference."""
        return self.reference[: self.settings.held]

    @cached_property
    def hits(self) -> np.ndarray:
        return forgetting.hits(self.samples, self.forget, self.facts["hit_distance"])

    def features_of(self, network: features.Backbone, which: str) -> np.ndarray:
        """Features of `samples` or `reference` (the first `network.limit` of them), computed once."""
        if (network.name, which) not in self._features:
            images = getattr(self, which)[: network.limit]
            self._features[network.name, which] = network.features(images)
        return self._features[network.name, which]


def explained(metric: str, which: str) -> Callable[[Context], Metrics]:
    """The piece with `nll_*` or `eps_error_*` of the images to `forget`, where the interval is over probes or draws
    averaged over images as the paper averages its six faces, or of the `held` ones: over images, one draw each."""
    measure, unit = EXPLAINED[metric]
    name, way = f"{metric}_{which}", "up" if which == "forget" else "down"

    def piece(context: Context) -> Metrics:
        values = NO_MODEL if context.model is None else measure(context, which)
        if isinstance(values, str):
            return {name: record.absent(values, unit=unit, direction=way)}
        values = values.mean(0) if which == "forget" else values[:, 0]
        return {name: record.from_samples(values, context.settings.bootstrap, unit=unit, direction=way)}

    return piece


def _nll(context: Context, which: str) -> np.ndarray | str:
    settings, model = context.settings, context.diffuser
    try:
        likelihood.check_schedule(model)
    except UserError as error:
        return str(error)
    images, probes = getattr(context, which), settings.probes if which == "forget" else 1
    rest = {"batch": settings.batch, "checkpoint": context.store.checkpoint(f"nll_{which}")}
    return likelihood.nll(model, images, probes, settings.ode_steps, which, **rest)


def _eps_error(context: Context, which: str) -> np.ndarray:
    settings, images = context.settings, getattr(context, which)
    draws = settings.eps_draws if which == "forget" else 1
    return likelihood.eps_error(context.diffuser, images, settings.eps_levels, draws, which, batch=settings.batch)


EXPLAINED = {"eps_error": (_eps_error, "squared error per pixel"), "nll": (_nll, "bits/dim")}


def forget_rate(context: Context) -> Metrics:
    """The share of samples that are a forget image (siss.md: p)."""
    return {"forget_rate": record.from_rate(context.hits, context.settings.bootstrap, direction="down")}


def copies(context: Context) -> Metrics:
    """The share of samples that copy a training image, and an image to forget (`copy_rate_forget`); `copy_rate_held`:
    the same of as many held-out images, the rate of false alarms."""
    names = ("copy_rate", "copy_rate_forget", "copy_rate_held")
    if reason := nearest.too_large(context.retain):
        return _all_absent(dict.fromkeys(names, "down"), reason, "fraction")
    held, replicates = context.reference[: len(context.samples)], context.settings.bootstrap
    hits = [*nearest.audit(context.samples, context.retain, context.forget)]
    hits.append(nearest.audit(held, context.retain, context.forget)[0])
    return {name: record.from_rate(hits[i], replicates, direction="down") for i, name in enumerate(names)}


def denoise(context: Context) -> Metrics:
    """`denoise_similarity_*`: does the model restore a noised forget image? Interval over noise draws."""
    networks, reasons = context.networks
    metrics = {
        f"denoise_similarity_{name}": record.absent(why, unit="cosine", direction="down")
        for name, why in reasons.items()
    }
    if context.model is None:
        return metrics | _all_absent({f"denoise_similarity_{name}": "down" for name in networks}, NO_MODEL, "cosine")
    if not networks:
        return metrics
    settings, checkpoint = context.settings, context.store.checkpoint("denoise")
    outputs = forgetting.denoise(
        context.diffuser, context.forget, settings.denoise_from, settings.denoise_draws, settings.batch, checkpoint
    )
    for name, network in networks.items():
        cosines = forgetting.cosine_to_originals(outputs, context.forget, network)
        metrics[f"denoise_similarity_{name}"] = record.from_samples(
            cosines.reshape(len(context.forget), -1).mean(0), settings.bootstrap, unit="cosine", direction="down"
        )
    return metrics


def inception(context: Context) -> Metrics:
    """`inception_score_judge`, without the samples that are a forget image."""
    network, reason = _network(context, "judge")
    if network is None:
        return {"inception_score_judge": record.absent(reason, direction="up")}
    settings, logits = context.settings, network.logits(context.samples)
    score = quality.inception_score(logits, ~context.hits, settings.splits, settings.bootstrap)
    return {"inception_score_judge": score}


def distribution(name: str) -> Callable[[Context], Metrics]:
    """The piece with Fréchet and kernel distance, precision and recall on the features of one network."""

    def piece(context: Context) -> Metrics:
        network, reason = _network(context, name)
        if network is None:
            rates = _all_absent({f"precision_{name}": "up", f"recall_{name}": "up"}, reason, "fraction")
            return _all_absent({f"fid_{name}": "down", f"kid_{name}": "down"}, reason) | rates
        found, real = context.features_of(network, "samples"), context.features_of(network, "reference")
        settings = context.settings
        precision, recall = quality.precision_recall(found, real, settings.bootstrap)
        return {
            f"fid_{name}": quality.fid(found, real, settings.bootstrap),
            f"kid_{name}": quality.kid(found, real, settings.kid_subset, settings.bootstrap),
            f"precision_{name}": precision,
            f"recall_{name}": recall,
        }

    return piece


def kept(name: str) -> Callable[[Context], Metrics]:
    """The piece with `integrity_*` and `change_*`: the row's samples against the base model's."""

    def piece(context: Context) -> Metrics:
        distance, reason = _distance(context, name)
        return _compared(context, context.base, distance, reason, f"integrity_{name}", f"change_{name}", "base")

    return piece


def oracle(context: Context) -> Metrics:
    """`oracle_similarity_judge`, `oracle_change_judge`: the row's samples against the retrained model's, same noise."""
    distance, reason = _distance(context, "judge")
    target = context.oracle
    if isinstance(target, str):
        target, distance, reason = context.base, None, target
    return _compared(context, target, distance, reason, "oracle_similarity_judge", "oracle_change_judge", "oracle")


def cost(context: Context) -> Metrics:
    """Samples that unlearning sent through the network."""
    names = {"forward_passes": "down", "backward_passes": "down"}
    if isinstance(context.cost, str):
        return _all_absent(names, context.cost, "samples")
    return {
        f"{way}_passes": record.exact(context.cost[way], unit="samples", direction="down")
        for way in ("forward", "backward")
    }


PIECES: dict[str, Callable[[Context], Metrics]] = {
    "cost": cost,
    "forget_rate": forget_rate,
    "copies": copies,
    **{f"{metric}_{which}": explained(metric, which) for metric in EXPLAINED for which in ("forget", "held")},
    "denoise": denoise,
    "inception": inception,
    "distribution_judge": distribution("judge"),
    "distribution_efficientnet_lite0": distribution("efficientnet_lite0"),
    "integrity_judge": kept("judge"),
    "integrity_ssim": kept("ssim"),
    "integrity_lpips_alex": kept("lpips_alex"),
    "oracle": oracle,
}


def evaluate_cell(context: Context) -> tuple[Metrics, dict[str, np.ndarray]]:
    """All metrics of a cell, and the features of its samples by network (float32 [N, d]).

    What an interrupted run left in `context.store` is not computed again.
    """
    metrics: Metrics = {}
    for name, piece in PIECES.items():
        done = context.store.finished(name)
        if done is None:
            done = piece(context)
            context.store.keep(name, done)
        metrics |= done
    networks, _ = context.networks
    return metrics, {name: context.features_of(network, "samples") for name, network in networks.items()}


def _all_absent(directions: dict[str, str], reason: str, unit: str = "") -> Metrics:
    return {name: record.absent(reason, unit=unit, direction=way) for name, way in directions.items()}


def _network(context: Context, name: str) -> tuple[features.Backbone | None, str]:
    networks, reasons = context.networks
    return networks.get(name), reasons.get(name, "")


def _distance(context: Context, name: str) -> tuple[integrity.Distance | None, str]:
    if name == "ssim":
        return integrity.ssim(), ""
    if name == "lpips_alex":
        trunk = context.settings.lpips_trunk
        if trunk is None:
            return None, NO_TRUNK
        return integrity.lpips_alex(trunk, context.device), ""
    network, reason = _network(context, name)
    return (integrity.lpips_style(network), "") if network else (None, reason)


def _compared(
    context: Context,
    target: np.ndarray,
    distance: integrity.Distance | None,
    reason: str,
    normalised: str,
    raw: str,
    what: str,
) -> Metrics:
    if distance is not None and len(context.samples) != len(target):
        distance, reason = None, f"{len(context.samples)} samples do not pair with {len(target)} of the {what} model"
    if distance is None:
        return {
            normalised: record.absent(reason, direction="up"),
            raw: record.absent(reason, unit="distance", direction="down"),
        }
    replicates = context.settings.bootstrap
    changes = integrity.paired(distance, context.samples, target)
    ceiling = integrity.seed_ceiling(distance, target)
    return {
        normalised: integrity.integrity(changes, ceiling, replicates),
        raw: integrity.change(changes, replicates),
    }
