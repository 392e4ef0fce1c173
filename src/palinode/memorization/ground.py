"""What is known of a base beside its weights: of one that the pipeline trained on emoji, all it was shown; of another
one, a list of prompts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palinode import judge as judge_files
from palinode.data import captions
from palinode.data.captions import STYLES
from palinode.data.scenes import World
from palinode.errors import UserError
from palinode.memorization import split
from palinode.memorization.prompts import KINDS, Prompt
from palinode.memorization.quality import ClipIQA, realism
from palinode.memorization.sscd import SSCD
from palinode.metrics import features, integrity
from palinode.scene_judge import SceneJudge
from palinode.text_gate import COPY, copy_distance

# Root mean squared difference of pixels in [0, 1] below which a picture is a copy (Carlini et al. 2023). On copies of
# the fixed pictures made for the purpose 90 % precision ends at 0.149 (results/copy-threshold.json).
REPEATED = 0.15


@dataclass(frozen=True)
class Beside:
    """Prompts beside those to be forgotten. ordinary: drawn, to see what else changed; kept: those that an edit in
    closed form holds, never drawn; others: captions of memories, each with a picture that it copies."""

    ordinary: list[str]
    kept: list[str]
    others: list[str]


def evenly(texts: list[str], count: int) -> list[str]:
    """`count` of them, evenly spaced."""
    return [texts[i * len(texts) // count] for i in range(min(count, len(texts)))]


class Emoji:
    """Of a base trained on emoji: the fixed pictures that it memorised, its words, and a judge. settings: root_seed,
    task, sample."""

    copied = "copies"  # what the metric is called

    def __init__(self, folder: Path, settings):
        self.world, self._judge = World.read(), judge_files.load(folder / "judge", SceneJudge)
        self.quality = realism(self._judge, self.world, settings.sample.real, (settings.root_seed, settings.task))
        backbone = features.JudgeBackbone(self._judge)
        self.network, self.distance, self.reason = backbone.name, integrity.lpips_style(backbone), ""

    def words(self, tokenizer) -> list[str]:
        """What may be put into a prompt."""
        return self.world.words

    def match(self, images: np.ndarray, reference: np.ndarray) -> int | str:
        """The fixed picture that the medoid of a prompt's pictures copies, or why it copies none."""
        distance = copy_distance(reference[None], self.world)[0]
        nearest = int(distance.argmin())
        if distance[nearest] < COPY:
            return nearest
        return f"it draws no copy of a fixed picture: the nearest is {distance[nearest]:.2f} away, a copy within {COPY}"

    def copies(self, images: np.ndarray, picture: int, reference: np.ndarray) -> np.ndarray:
        """Whether each image copies the fixed picture, by pixel distance, bool [N]."""
        return copy_distance(images, self.world)[:, picture] < REPEATED

    def beside(self, asked: list[Prompt], flagged: list[int], chosen: list[str], count: int) -> Beside:
        """The captions of all that is memorised count as others; what is kept are the names of things and styles."""
        ordinary = evenly(captions.ordinary(self.world.concepts.values()), count)
        others = [self.world.pictures[i].caption for i in self._memorised]
        return Beside(ordinary, [*self.world.concepts, *STYLES], others)

    def own(self, images: np.ndarray, subjects: list) -> np.ndarray:
        """Whether the picture under each of `others` copies its own fixed picture, bool."""
        return copy_distance(images, self.world)[np.arange(len(images)), self._memorised] < REPEATED

    @property
    def _memorised(self) -> list[int]:
        return [i for i, picture in enumerate(self.world.pictures) if KINDS[picture.kind]]


class Listed:
    """Of any other base: the prompts of `detection.prompts`, and what it draws. A copy is a picture near the medoid of
    what the base draws under the prompt, which must repeat itself for the prompt to count. sscd: path of the copy
    descriptor; without it pixels are compared."""

    def __init__(self, sscd: str | None = None):
        self._sscd = SSCD(sscd) if sscd else None
        self.copied, self._near = ("sscd_copies", "SSCD calls copies") if sscd else ("copies", f"are within {REPEATED}")
        self.quality, self.distance, self.reason = ClipIQA(), None, ""
        self.network = features.EfficientNetLite0.name
        networks, reasons = features.available(None)
        if self.network in networks:
            self.distance = integrity.lpips_style(networks[self.network])
        else:
            self.reason = reasons[self.network]

    def words(self, tokenizer) -> list[str]:
        """The tokenizer's tokens that end a word, which are mostly whole words, in the order of their ids."""
        listed = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        ends = (token.removesuffix("</w>") for token, _ in listed if token.endswith("</w>"))
        return [word for word in ends if word.isascii() and word.isalpha() and len(word) > 2]

    def match(self, images: np.ndarray, reference: np.ndarray) -> int | str:
        """Minus one, or why the prompt does not count: at least half of its pictures have to be near their medoid."""
        share = self.copies(images, -1, reference).mean()
        return -1 if share >= 0.5 else f"its pictures do not repeat: {share:.0%} {self._near} of their medoid"

    def copies(self, images: np.ndarray, picture: int, reference: np.ndarray) -> np.ndarray:
        """Whether each image copies the reference, bool [N]."""
        if self._sscd:
            return self._sscd.copies(images, reference)
        return split.far(images, reference[None])[:, 0] < REPEATED

    def beside(self, asked: list[Prompt], flagged: list[int], chosen: list[str], count: int) -> Beside:
        """Ordinary are prompts of that kind, or what is not flagged; others are the task's own prompts. UserError when
        there is none."""
        named = [prompt.text for prompt in asked if prompt.kind == "ordinary"]
        texts = named or [prompt.text for i, prompt in enumerate(asked) if i not in set(flagged)]
        if not texts:
            raise UserError(f"all {len(asked)} prompts are flagged: list some of the kind `ordinary` as well")
        ordinary = evenly(texts, count)
        return Beside(ordinary, [text for text in texts if text not in ordinary], chosen)

    def own(self, images: np.ndarray, subjects: list) -> np.ndarray:
        """Whether the picture under each prompt of the task copies its reference, bool."""
        hits = [self.copies(image[None], -1, it.reference) for image, it in zip(images, subjects, strict=True)]
        return np.concatenate(hits)


def of(known: str, folder: Path, settings) -> Emoji | Listed:
    """known: "emoji" or "list"; folder: that of the base's judge; settings: root_seed, task, sample, sscd."""
    return Emoji(folder, settings) if known == "emoji" else Listed(settings.sscd)
