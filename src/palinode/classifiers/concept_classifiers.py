"""Judges that look for one concept: does a picture show the target, and does it show what its caption asks for?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from palinode.classifiers import storage
from palinode.classifiers.digits import Judge
from palinode.classifiers.scene_judge import SceneJudge
from palinode.classifiers.scene_pictures import halves
from palinode.core.images import to_model
from palinode.core.io import absence
from palinode.data.captions import STYLES, Caption
from palinode.data.scenes import EmojiCorpus


@dataclass(frozen=True)
class Predictions:
    """What a judge sees in N pictures.

    target_probability: [N]; missed: bool [N], the target is not seen; correct: bool [N], what the caption asks for is
    seen; entropy: [N], nats, over the domain of the target.
    """

    target_probability: np.ndarray
    missed: np.ndarray
    correct: np.ndarray
    entropy: np.ndarray


class ConceptClassifier(Protocol):
    """A judge that looks for one target; images are uint8 [N, H, W, C], with a caption each."""

    @property
    def judge(self) -> Judge | SceneJudge: ...

    def __call__(self, images: np.ndarray, captions: list[Caption]) -> Predictions: ...

    def score_captions(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        """How well each caption fits each picture: log probabilities [pictures, captions].

        Of its thing, and of its style if it names one; of its class.
        """
        ...


class SceneConceptClassifier:
    """The judge of scenes, looking for one thing or style.

    A picture of two things shows the target when either half does. A picture is correct when thing and style are, where
    the caption names a style, and else when the thing is. A picture of two is correct when both things are.
    """

    def __init__(self, judge: SceneJudge, things: list[str], target: str):
        self.judge = judge
        self.things = things
        self.is_style = target in STYLES
        self.number = STYLES.index(target) if self.is_style else things.index(target)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, captions: list[Caption]) -> Predictions:
        x = to_model(np.array(images))
        thing_logits, style_logits = self.judge(x)
        half_logits = [self.judge(half)[0] for half in halves(x)]
        own_logits = style_logits if self.is_style else thing_logits
        p = own_logits.softmax(1)
        probability = p[:, self.number]
        shown = own_logits.argmax(1) == self.number
        if not self.is_style:
            two = torch.tensor([len(caption.concepts) > 1 for caption in captions])
            by_half = torch.stack([logits.softmax(1)[:, self.number] for logits in half_logits])
            shown_by_half = torch.stack([logits.argmax(1) == self.number for logits in half_logits])
            probability = torch.where(two, by_half.amax(0), probability)
            shown = torch.where(two, shown_by_half.any(0), shown)
        best = [logits.argmax(1).tolist() for logits in (thing_logits, style_logits, *half_logits)]
        correct = [self._is_correct(*row) for row in zip(captions, *best, strict=True)]
        return Predictions(probability.numpy(), ~shown.numpy(), np.array(correct), _entropy(p).numpy())

    @torch.inference_mode()
    def score_captions(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        thing, style = (logits.log_softmax(1).numpy() for logits in self.judge(to_model(np.array(images))))
        scores = thing[:, [self.things.index(caption.concepts[0]) for caption in captions]]
        for column, caption in enumerate(captions):
            if caption.style is not None:
                scores[:, column] += style[:, STYLES.index(caption.style)]
        return scores

    def _is_correct(self, caption: Caption, thing: int, style: int, left: int, right: int) -> bool:
        wanted = [self.things.index(name) for name in caption.concepts]
        if len(wanted) == 2:
            return [left, right] == wanted
        if [thing][: len(wanted)] != wanted:
            return False
        return caption.style is None or style == STYLES.index(caption.style)


class ClassConceptClassifier:
    """A classifier, looking for one class."""

    def __init__(self, judge: Judge, target: int):
        self.judge = judge
        self.target = target

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, captions: list[Caption]) -> Predictions:
        p = self.judge(to_model(np.array(images))).softmax(1)
        best = p.argmax(1).numpy()
        correct = [
            not caption.concepts or int(caption.concepts[0]) == seen
            for caption, seen in zip(captions, best, strict=True)
        ]
        return Predictions(p[:, self.target].numpy(), best != self.target, np.array(correct), _entropy(p).numpy())

    @torch.inference_mode()
    def score_captions(self, images: np.ndarray, captions: list[Caption]) -> np.ndarray:
        logits = self.judge(to_model(np.array(images))).log_softmax(1).numpy()
        return logits[:, [int(caption.concepts[0]) for caption in captions]]


def load(folder: Path, kind: str, target: str | int) -> ConceptClassifier | str:
    """The judge in a folder, looking for a target, or the reason why there is none.

    kind: of the base, "text" (target: a thing or a style) or "class" (target: its number).
    """
    if reason := absence(folder):
        return reason
    if kind == "text":
        return SceneConceptClassifier(storage.load(folder, SceneJudge), list(EmojiCorpus.read().concepts), str(target))
    return ClassConceptClassifier(storage.load(folder), int(target))


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(1)
