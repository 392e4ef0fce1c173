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
from palinode.models import Diffuser

Metrics = dict[str, Metric]
BITS, SQUARED = "bits/dim", "squared error per pixel"
NO_MODEL = "the row has samples but no model"
NO_TRUNK = "no AlexNet checkpoint is set (evaluate.lpips_trunk); an untrained backbone is refused"


@dataclass
class Context:
    """What a cell is evaluated on.

    model: loads the cell's model when a piece needs it, None for the row `real`; samples, base, oracle, reference,
    retain, forget: uint8 [N, H, W, C], where sample i of samples, base and oracle comes from the same noise; oracle:
    or the reason why there is none; facts: facts.json of the task; cost: cost.json, or the reason why there is none;
    settings: the task's `evaluate` block; judge: folder, or None with judge_reason; progress: called with (done, total)
    inside slow pieces.
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
    progress: Callable[[int, int], None] | None = None
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


def nll(context: Context) -> Metrics:
    """`nll_forget`: interval over Hutchinson probes; `nll_held`: over images, one probe each."""
    names = {"nll_forget": "up", "nll_held": "down"}
    if context.model is None:
        return _all_absent(names, NO_MODEL, BITS)
    settings, model = context.settings, context.diffuser
    try:
        likelihood.check_schedule(model)
    except UserError as error:
        return _all_absent(names, str(error), BITS)
    rest = {"batch": settings.batch, "progress": context.progress}
    forget = likelihood.nll(model, context.forget, settings.probes, settings.ode_steps, "forget", **rest)
    held = likelihood.nll(model, context.held, 1, settings.ode_steps, "held", **rest)
    return _forget_and_held("nll", forget, held, BITS, settings.bootstrap)


def eps_error(context: Context) -> Metrics:
    """`eps_error_forget`: interval over noise draws; `eps_error_held`: over images, one draw each."""
    if context.model is None:
        return _all_absent({"eps_error_forget": "up", "eps_error_held": "down"}, NO_MODEL, SQUARED)
    settings, rest = context.settings, {"batch": context.settings.batch, "progress": context.progress}
    levels, model = settings.eps_levels, context.diffuser
    forget = likelihood.eps_error(model, context.forget, levels, settings.eps_draws, "forget", **rest)
    held = likelihood.eps_error(model, context.held, levels, 1, "held", **rest)
    return _forget_and_held("eps_error", forget, held, SQUARED, settings.bootstrap)


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
    settings, rest = context.settings, {"batch": context.settings.batch, "progress": context.progress}
    outputs = forgetting.denoise(
        context.diffuser, context.forget, settings.denoise_from, settings.denoise_draws, **rest
    )
    for name, network in networks.items():
        cosines = forgetting.cosine_to_originals(outputs, context.forget, network)
        metrics[f"denoise_similarity_{name}"] = record.from_samples(
            _per_draw(cosines.reshape(len(context.forget), -1)), settings.bootstrap, unit="cosine", direction="down"
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
    "eps_error": eps_error,
    "nll": nll,
    "denoise": denoise,
    "inception": inception,
    "distribution_judge": distribution("judge"),
    "distribution_efficientnet_lite0": distribution("efficientnet_lite0"),
    "integrity_judge": kept("judge"),
    "integrity_ssim": kept("ssim"),
    "integrity_lpips_alex": kept("lpips_alex"),
    "oracle": oracle,
}


def evaluate_cell(
    context: Context,
    finished: Callable[[str], Metrics | None] = lambda piece: None,
    keep: Callable[[str, Metrics], None] = lambda piece, metrics: None,
) -> tuple[Metrics, dict[str, np.ndarray]]:
    """All metrics of a cell, and the features of its samples by network (float32 [N, d]).

    finished(piece): what an interrupted run already computed, or None; keep(piece, metrics): called after each new
    piece.
    """
    metrics: Metrics = {}
    for name, piece in PIECES.items():
        done = finished(name)
        if done is None:
            done = piece(context)
            keep(name, done)
        metrics |= done
    networks, _ = context.networks
    return metrics, {name: context.features_of(network, "samples") for name, network in networks.items()}


def _all_absent(directions: dict[str, str], reason: str, unit: str = "") -> Metrics:
    return {name: record.absent(reason, unit=unit, direction=way) for name, way in directions.items()}


def _per_draw(values: np.ndarray) -> np.ndarray:
    """Several forget images: values [K, draws] averaged over images, as the paper averages its six faces."""
    return values.mean(0)


def _forget_and_held(name: str, forget: np.ndarray, held: np.ndarray, unit: str, replicates: int) -> Metrics:
    """Metrics from values [K, draws] of the forget images and [H, 1] of the held-out ones."""
    return {
        f"{name}_forget": record.from_samples(_per_draw(forget), replicates, unit=unit, direction="up"),
        f"{name}_held": record.from_samples(held[:, 0], replicates, unit=unit, direction="down"),
    }


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
