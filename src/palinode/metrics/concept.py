"""What a model forgot, inside and outside the prompts used for it, what it kept, and how far it drifted."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from palinode import judge as judge_files
from palinode.data.captions import STYLES, Caption
from palinode.data.scenes import World
from palinode.metrics import integrity, quality, record
from palinode.metrics.features import JudgeBackbone
from palinode.metrics.integrity import Distance
from palinode.metrics.record import Metric
from palinode.models import absent, to_model
from palinode.scene_judge import SceneJudge, halves

IN_SET, OUT_OF_SET = "T0", ("T2", "T3")  # the gap between prompts that unlearning saw and new words for the same


@dataclass(frozen=True)
class Seen:
    """What a judge sees. target: probability of the target [N]; missed: bool [N], it does not see the target; right:
    bool [N], it sees what the caption asks for; entropy [N], nats, of the domain of the target."""

    target: np.ndarray
    missed: np.ndarray
    right: np.ndarray
    entropy: np.ndarray


class Eyes(Protocol):
    """A judge looking for one target; `backbone`: the features behind it."""

    backbone: JudgeBackbone

    def __call__(self, images: np.ndarray, captions: list[Caption]) -> Seen: ...

    def fits(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        """How well each caption fits each picture, log probabilities [pictures, captions]: of its thing, and of its
        style if it names one; of its class."""


class SceneEyes:
    """The judge of scenes, looking for one thing or style.

    A picture of two things shows the target when either half does. What is right: thing and style where the caption
    names a style, the thing alone otherwise; for a picture of two, both things.
    """

    def __init__(self, judge, things: list[str], target: str):
        self.judge, self.things, self.target = judge, things, target
        self.backbone, self.style = JudgeBackbone(judge), target in STYLES
        self.number = STYLES.index(target) if self.style else things.index(target)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, captions: list[Caption]) -> Seen:
        x = to_model(np.array(images))
        whole, parts = self.judge(x), [self.judge(half)[0] for half in halves(x)]
        p = whole[self.style].softmax(1)
        two = torch.tensor([len(it.concepts) > 1 for it in captions])
        target, best = p[:, self.number], whole[self.style].argmax(1) == self.number
        if not self.style:
            each = torch.stack([part.softmax(1)[:, self.number] for part in parts])
            target = torch.where(two, each.amax(0), target)
            either = torch.stack([part.argmax(1) == self.number for part in parts]).any(0)
            best = torch.where(two, either, best)
        thing, style = (logits.argmax(1) for logits in whole)
        left, right = (part.argmax(1) for part in parts)
        found = [self._right(it, *(int(v[i]) for v in (thing, style, left, right))) for i, it in enumerate(captions)]
        return Seen(target.numpy(), ~best.numpy(), np.array(found), _entropy(p).numpy())

    @torch.inference_mode()
    def fits(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        thing, style = (logits.log_softmax(1).numpy() for logits in self.judge(to_model(np.array(images))))
        named = [STYLES.index(it.style) if it.style else None for it in captions]
        things = thing[:, [self.things.index(it.concepts[0]) for it in captions]]
        return things + np.stack([0 * thing[:, 0] if k is None else style[:, k] for k in named], 1)

    def _right(self, caption: Caption, thing: int, style: int, left: int, right: int) -> bool:
        wanted = [self.things.index(name) for name in caption.concepts]
        got = [left, right] if len(wanted) == 2 else [thing][: len(wanted)]
        return got == wanted and (caption.style is None or len(wanted) == 2 or style == STYLES.index(caption.style))


class ClassEyes:
    """A classifier, looking for one class."""

    def __init__(self, judge, target: int):
        self.judge, self.target, self.backbone = judge, target, JudgeBackbone(judge)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, captions: list[Caption]) -> Seen:
        p = self.judge(to_model(np.array(images))).softmax(1)
        seen = p.argmax(1).numpy()
        right = np.array([not it.concepts or int(it.concepts[0]) == c for it, c in zip(captions, seen, strict=True)])
        return Seen(p[:, self.target].numpy(), seen != self.target, right, _entropy(p).numpy())

    @torch.inference_mode()
    def fits(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        logits = self.judge(to_model(np.array(images))).log_softmax(1).numpy()
        return logits[:, [int(it.concepts[0]) for it in captions]]


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(1)


def eyes(folder: Path, kind: str, target: str | int) -> Eyes | str:
    """The judge in a folder, looking for a target, or the reason why there is none; kind: "text" or "class"."""
    if reason := absent(folder):
        return reason
    if kind == "text":
        return SceneEyes(judge_files.load(folder, SceneJudge), list(World.read().concepts), target)
    return ClassEyes(judge_files.load(folder), target)


@dataclass(frozen=True)
class Context:
    """What a cell is evaluated on; all dictionaries are by stratum.

    samples, base, other: uint8 [N, H, W, C] of this model, of the original from the same noise, and of the original
    from another noise; oracle: of the retrained model, or the reason why there is none; prompts: what was asked for;
    forget, keep: names of the strata; real: uint8 [M, H, W, C], a real picture for each kept prompt but the empty ones,
    or why there are none; eyes, lpips: the judge and LPIPS, or why they are absent; bootstrap: number of replicates.
    """

    samples: dict[str, np.ndarray]
    base: dict[str, np.ndarray]
    other: dict[str, np.ndarray]
    oracle: dict[str, np.ndarray] | str
    prompts: dict[str, list[Caption]]
    forget: list[str]
    keep: list[str]
    real: np.ndarray | str
    eyes: Eyes | str
    bootstrap: int = record.REPLICATES
    lpips: Distance | str = "no AlexNet checkpoint is set (lpips_trunk)"


def evaluate(context: Context) -> dict[str, Metric]:
    """All metrics of a cell. Strata in names are lower case, with "_" for a space."""
    if isinstance(context.eyes, str):
        return _unseen(context) | _drift(context)
    seen = {name: context.eyes(context.samples[name], context.prompts[name]) for name in context.samples}
    return _forgotten(context, seen) | _kept(context, seen) | _drift(context)


def _unseen(context: Context) -> dict[str, Metric]:
    """What `_forgotten` and `_kept` would measure, absent, since no judge sees what the pictures show."""
    shown = [_name(name) for name in context.keep if name != "empty"]
    found = [f"ua_{_name(name)}" for name in context.forget] + ["ua_gap", "target_probability", "target_entropy"]
    found += [key for name in shown for key in (f"right_{name}", f"kid_{name}_judge", f"alignment_{name}")]
    found += [f"{measure}_kept_judge" for measure in ("precision", "recall", "fid")]
    real = ("kid_kept_real_judge", "fid_kept_real_judge")
    reasons = dict.fromkeys(found, context.eyes) | dict.fromkeys(real, context.real)
    return {name: record.absent(reason) for name, reason in reasons.items()}


def _forgotten(context: Context, seen: dict[str, Seen]) -> dict[str, Metric]:
    """ua_<tier>: share of pictures in which the judge does not see the target; ua_gap: T0 minus the mean of T2 and T3;
    target_probability, target_entropy: on T0."""
    rates = {name: record.from_rate(seen[name].missed, context.bootstrap, direction="up", stream=(name,))
             for name in context.forget}  # fmt: skip
    found = {f"ua_{_name(name)}": rate for name, rate in rates.items()}
    if all(name in rates for name in OUT_OF_SET):
        outside = [rates[name] for name in OUT_OF_SET]
        value = rates[IN_SET].value - sum(rate.value for rate in outside) / len(outside)
        drawn = rates[IN_SET].replicates - sum(rate.replicates for rate in outside) / len(outside)
        count = rates[IN_SET].n
        found["ua_gap"] = record.from_replicates(value, drawn, count, unit="fraction", direction="down")
    first = seen[IN_SET]
    found["target_probability"] = record.from_samples(first.target, context.bootstrap, unit="", direction="down")
    found["target_entropy"] = record.from_samples(first.entropy, context.bootstrap, unit="nats", direction="up")
    return found


def _kept(context: Context, seen: dict[str, Seen]) -> dict[str, Metric]:
    """right_<stratum>: share of kept pictures that show what was asked for (IRA for near and far, CRA for the other
    domain); alignment_<stratum>: share of pictures that their own caption fits better than any other of the stratum;
    kid_<stratum>_judge against the original model's pictures from another noise; fid_kept_judge, precision_kept_judge,
    recall_kept_judge: the same for all these strata together; kid_kept_real_judge, fid_kept_real_judge: against real
    pictures of the same."""
    found, shown = {}, [name for name in context.keep if name != "empty"]
    network = context.eyes.backbone
    ours, theirs = ({name: network.features(images[name]) for name in shown}
                    for images in (context.samples, context.other))  # fmt: skip
    for name in shown:
        rate = record.from_rate(seen[name].right, context.bootstrap, direction="up", stream=(name,))
        found[f"right_{_name(name)}"] = rate
        subset = min(64, len(ours[name]), len(theirs[name]))
        found[f"kid_{_name(name)}_judge"] = quality.kid(ours[name], theirs[name], subset, context.bootstrap)
        if (aligned := _aligned(context, name)) is not None:
            found[f"alignment_{_name(name)}"] = record.from_rate(
                aligned, context.bootstrap, direction="up", stream=(name,)
            )
    ours, theirs = (np.concatenate(list(features.values())) for features in (ours, theirs))
    precision, recall = quality.precision_recall(ours, theirs, context.bootstrap)
    found |= {"precision_kept_judge": precision, "recall_kept_judge": recall}
    real = network.features(context.real)
    found["kid_kept_real_judge"] = quality.kid(ours, real, min(64, len(ours)), context.bootstrap)
    found["fid_kept_real_judge"] = quality.fid(ours, real, context.bootstrap)
    return found | {"fid_kept_judge": quality.fid(ours, theirs, context.bootstrap)}


def _aligned(context: Context, stratum: str) -> np.ndarray | None:
    """bool [N]: the own caption fits best among those of the stratum; None where all ask for the same, or some name a
    style and some do not, so that how well they fit does not compare."""
    prompts = context.prompts[stratum]
    rivals = list({(it.concepts, it.style): it for it in prompts}.values())
    if len(rivals) == 1 or len({it.style is None for it in rivals}) == 2:
        return None
    own = [[(it.concepts, it.style) for it in rivals].index((it.concepts, it.style)) for it in prompts]
    return context.eyes.fits(context.samples[stratum], rivals).argmax(1) == np.array(own)


def _drift(context: Context) -> dict[str, Metric]:
    """integrity_<stratum>_<network> and change_<stratum>_<network> against the original, and the same of the distance
    to the oracle (oracle_change_<stratum>_<network>), all on the same noise; the ceiling is the original from another
    noise. network: judge, its features, and lpips_alex, where that was asked for or there is no judge."""
    judge = context.eyes if isinstance(context.eyes, str) else integrity.lpips_style(context.eyes.backbone)
    networks, found = {"judge": judge, "lpips_alex": context.lpips}, {}
    wanted = networks if isinstance(judge, str) or callable(context.lpips) else ("judge",)
    for network, name in itertools.product(wanted, [*context.keep, *context.forget]):
        distance, end = networks[network], f"{_name(name)}_{network}"
        if isinstance(distance, str):
            found[f"integrity_{end}"] = record.absent(distance, direction="up")
            for key in (f"change_{end}", f"oracle_change_{end}"):
                found[key] = record.absent(distance, unit="distance", direction="down")
            continue
        changes = integrity.paired(distance, context.base[name], context.samples[name])
        ceiling = integrity.paired(distance, context.base[name], context.other[name])
        found[f"integrity_{end}"] = integrity.integrity(changes, ceiling, context.bootstrap)
        found[f"change_{end}"] = integrity.change(changes, context.bootstrap)
        if isinstance(context.oracle, str):
            found[f"oracle_change_{end}"] = record.absent(context.oracle, unit="distance", direction="down")
        else:
            apart = integrity.paired(distance, context.oracle[name], context.samples[name])
            found[f"oracle_change_{end}"] = integrity.change(apart, context.bootstrap)
    return found


def _name(stratum: str) -> str:
    return stratum.lower().replace(" ", "_")
