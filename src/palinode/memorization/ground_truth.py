"""What is known of a base beside its weights.

Of a base that the pipeline trained on emoji, all that it was shown is known. Of another one, a list of prompts is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.errors import UserError
from palinode.data.captions import STYLES
from palinode.data.prompt_lists import KINDS, Prompt
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import splitting
from palinode.memorization.control_prompts import ControlPrompts
from palinode.memorization.realism import ClipIQA, Realism, fit_realism
from palinode.metrics import features, integrity
from palinode.metrics.copies import COPY, copy_distance
from palinode.metrics.sscd import SSCD
from palinode.params.fields import CorpusName, Known

# Root mean squared difference of pixels in [0, 1] below which a picture is a copy (Carlini et al. 2023, arXiv
# 2301.13188). On copies of the fixed pictures made for the purpose, 90 % precision ends at 0.149
# (results/copy-threshold.json).
REPEATED = 0.15
NO_PICTURE = -1  # instead of the number of a fixed picture, where none is known


class Referenced(Protocol):
    """A prompt with the medoid of what the base draws under it, uint8 [H, W, C]."""

    @property
    def reference(self) -> np.ndarray: ...


class LabelledGroundTruth:
    """Of a base trained on emoji: the fixed pictures that it memorized, its words, and a judge.

    corpus: its name; judge: the folder of the base's judge; real, key: of `realism.fit_realism`.
    """

    copy_metric = "copies"

    def __init__(self, corpus: CorpusName, judge: Path, real: int, key: tuple[str | int, ...]):
        self.corpus = EmojiCorpus.read(name=corpus)
        network = storage.load(judge, SceneJudge)
        self.quality: Realism | ClipIQA = fit_realism(network, self.corpus, real, key)
        networks = (features.JudgeBackbone(network), features.EfficientNetLite0())
        self.distances = {backbone.name: integrity.lpips_style(backbone) for backbone in networks}
        self.memorized = [i for i, picture in enumerate(self.corpus.pictures) if KINDS[picture.kind]]

    def words(self, tokenizer: Any) -> list[str]:
        """What may be put into a prompt."""
        return self.corpus.words

    def match(self, images: np.ndarray, reference: np.ndarray) -> int | str:
        """The fixed picture that the medoid of a prompt's pictures copies, or why it copies none."""
        distances = copy_distance(reference[None], self.corpus)[0]
        nearest = int(distances.argmin())
        if distances[nearest] < COPY:
            return nearest
        away = f"{distances[nearest]:.2f}"
        return f"it draws no copy of a fixed picture: the nearest is {away} away, a copy within {COPY}"

    def copies(self, images: np.ndarray, picture: int, reference: np.ndarray) -> np.ndarray:
        """Whether each image copies the fixed picture, by pixel distance, bool [N]."""
        return copy_distance(images, self.corpus)[:, picture] < REPEATED

    def control_prompts(
        self, prompts: Sequence[Prompt], flagged: Sequence[int], chosen: list[str], count: int
    ) -> ControlPrompts:
        """The captions of all that is memorized count as others; what is kept are the names of things and styles."""
        ordinary = pick_evenly(self.corpus.ordinary, count)
        others = [self.corpus.pictures[i].caption for i in self.memorized]
        return ControlPrompts(ordinary, [*self.corpus.concepts, *STYLES], others)

    def copies_own(self, images: np.ndarray, subjects: Sequence[Referenced]) -> np.ndarray:
        """Whether the picture under each of `others` copies its own fixed picture, bool."""
        return copy_distance(images, self.corpus)[np.arange(len(images)), self.memorized] < REPEATED


class PromptListGroundTruth:
    """Of any other base: the prompts of `detection.prompts`, and what it draws.

    A copy is a picture near the medoid of what the base draws under the prompt, which must repeat itself for the prompt
    to count. sscd: path of the copy descriptor; without it pixels are compared.
    """

    def __init__(self, sscd: str | None = None):
        self._sscd = SSCD(sscd) if sscd else None
        self.copy_metric = "sscd_copies" if sscd else "copies"
        self.quality: Realism | ClipIQA = ClipIQA()
        network = features.EfficientNetLite0()
        self.distances = {network.name: integrity.lpips_style(network)}

    def words(self, tokenizer: Any) -> list[str]:
        """The tokenizer's tokens that end a word, which are mostly whole words, in the order of their ids."""
        listed = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        ends = (token.removesuffix("</w>") for token, _ in listed if token.endswith("</w>"))
        return [word for word in ends if word.isascii() and word.isalpha() and len(word) > 2]

    def match(self, images: np.ndarray, reference: np.ndarray) -> int | str:
        """NO_PICTURE, or why the prompt does not count: at least half of its pictures have to be near their medoid."""
        share = self.copies(images, NO_PICTURE, reference).mean()
        if share >= 0.5:
            return NO_PICTURE
        near = "SSCD calls copies" if self._sscd else f"are within {REPEATED}"
        return f"its pictures do not repeat: {share:.0%} {near} of their medoid"

    def copies(self, images: np.ndarray, picture: int, reference: np.ndarray) -> np.ndarray:
        """Whether each image copies the reference, bool [N]."""
        if self._sscd:
            return self._sscd.copies(images, reference)
        return splitting.rms_distance(images, reference[None])[:, 0] < REPEATED

    def control_prompts(
        self, prompts: Sequence[Prompt], flagged: Sequence[int], chosen: list[str], count: int
    ) -> ControlPrompts:
        """Ordinary are prompts of that kind, or what is not flagged; others are the task's own prompts.

        UserError when there is no ordinary prompt.
        """
        named = [prompt.text for prompt in prompts if prompt.kind == "ordinary"]
        texts = named or [prompt.text for i, prompt in enumerate(prompts) if i not in set(flagged)]
        if not texts:
            raise UserError(f"all {len(prompts)} prompts are flagged: list some of the kind `ordinary` as well")
        ordinary = pick_evenly(texts, count)
        return ControlPrompts(ordinary, [text for text in texts if text not in ordinary], chosen)

    def copies_own(self, images: np.ndarray, subjects: Sequence[Referenced]) -> np.ndarray:
        """Whether the picture under each prompt of the task copies its reference, bool."""
        hits = [
            self.copies(image[None], NO_PICTURE, subject.reference)
            for image, subject in zip(images, subjects, strict=True)
        ]
        return np.concatenate(hits)


GroundTruth = LabelledGroundTruth | PromptListGroundTruth


def load(known: Known, judge: Path, real: int, key: tuple[str | int, ...], sscd: str | None = None) -> GroundTruth:
    """The ground truth of a base.

    judge: the folder of the base's judge; real: pictures that realism compares with; key: (root seed, task), which
    draws them. All three are for a corpus only, as sscd is for a list only.
    """
    return PromptListGroundTruth(sscd) if known == "list" else LabelledGroundTruth(known, judge, real, key)


def pick_evenly(texts: Sequence[str], count: int) -> list[str]:
    """`count` of them, evenly spaced."""
    return [texts[i * len(texts) // count] for i in range(min(count, len(texts)))]
