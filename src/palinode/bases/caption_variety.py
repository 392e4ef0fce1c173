"""Whether a text-to-image base varies where its captions leave things open, as large models do.

Two shares tell. *Variety*: how far apart the pictures of an ordinary caption are, from one noise to another, beside two
real pictures that fit the caption. *Edits*: of the automatic edits of memorized captions, those whose pictures are
copies in part, and in part not. A base that draws one picture a caption has a small variety, and no such edits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from palinode.classifiers.scene_judge import SceneJudge
from palinode.core import estimate, seeds
from palinode.core.images import to_images
from palinode.data import captions
from palinode.data.captions import BACKGROUNDS, STYLES, Caption
from palinode.data.prompt_lists import KINDS
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs
from palinode.memorization import splitting
from palinode.memorization.ground_truth import REPEATED
from palinode.metrics.copies import copy_distance
from palinode.metrics.features import JudgeBackbone
from palinode.metrics.integrity import lpips_style, measure_pairs
from palinode.params.bases import TextGate
from palinode.params.prompt_tasks import PromptSplit

TRIAL = 4  # pictures of an edit; how many edits are tried, and what counts, is as in prompt tasks by default
SPLIT = PromptSplit()

Draw = Callable[[list[str], str], np.ndarray]  # (prompts, what they are for) -> uint8 [N, H, W, C], by different noises


def measure_variety(draw: Draw, judge: SceneJudge, corpus: EmojiCorpus, key: tuple) -> dict[str, Any]:
    """Mean distance of two pictures of an ordinary caption / that of two real ones that fit, {value, lo, hi, n}.

    Distances are those of `integrity.lpips_style` on the judge; the interval is a bootstrap over captions. Only for a
    corpus that leaves things open.
    """
    asked = captions.ordinary_of_web(corpus.concepts.values())
    drawn = draw([caption.text for caption in asked] * 2, "ordinary")
    generator = seeds.generator(*key, "real pairs")
    real = [_render(asked, corpus, generator) for _ in range(2)]
    distance = lpips_style(JudgeBackbone(judge))
    by_model = measure_pairs(distance, drawn[: len(asked)], drawn[len(asked) :])
    by_reality = measure_pairs(distance, *real)
    ratio = estimate.from_statistic(lambda counts: counts @ by_model / (counts @ by_reality), len(asked))
    return {name: value for name, value in estimate.to_entry(ratio).items() if name != "interval"}


def measure_edits(draw: Draw, corpus: EmojiCorpus, key: tuple) -> dict[str, Any]:
    """Of the edits of all memorized captions, the share whose pictures are copies in part, {value, lo, hi, n}."""
    memorized = [i for i, picture in enumerate(corpus.pictures) if KINDS[picture.kind]]
    edits: list[tuple[str, int]] = []
    for i in memorized:
        text = corpus.pictures[i].caption
        shorter = splitting.shorten(text)[: SPLIT.edits]
        generator = seeds.generator(*key, "edits", text)
        longer = splitting.lengthen(text, corpus.words, SPLIT.edits - len(shorter), generator)
        edits += [(edit, i) for edit in (*shorter, *longer)]
    images = draw([edit for edit, _ in edits for _ in range(TRIAL)], "edits")
    own = np.repeat([i for _, i in edits], TRIAL)
    near = copy_distance(images, corpus)[np.arange(len(images)), own] < REPEATED
    shares = near.reshape(len(edits), TRIAL).mean(1)
    low, high = SPLIT.share_range
    return estimate.share(int(((shares >= low) & (shares <= high)).sum()), len(shares))


def problem(variety: dict[str, Any], edits: dict[str, Any], limits: TextGate) -> str | None:
    """Why the base is refused, or None."""
    if variety["value"] < limits.variety:
        apart = f"{variety['value']:.0%} as far apart as real ones, at least {limits.variety:.0%} wanted"
        return f"pictures of an ordinary caption are {apart}"
    if edits["value"] < limits.edits:
        return f"{edits['value']:.1%} of the edits give copies in part, at least {limits.edits:.0%} wanted"
    return None


def _render(asked: list[Caption], corpus: EmojiCorpus, generator: torch.Generator) -> np.ndarray:
    """A real picture for each caption of one thing: what it leaves open is drawn at random. uint8 [N, H, W, 3]."""
    names = list(corpus.concepts)
    pairs = seen_pairs(names)
    chosen = []
    for caption in asked:
        thing = names.index(caption.concepts[0])
        if caption.style is None:
            styles = [j for i, j in pairs if i == thing]
            style = styles[int(torch.randint(len(styles), (1,), generator=generator))]
        else:
            style = STYLES.index(caption.style)
        background = int(torch.randint(len(BACKGROUNDS), (1,), generator=generator))
        if caption.background is not None:
            background = list(BACKGROUNDS).index(caption.background)
        chosen.append((thing, style, background))
    left, style, background = torch.tensor(chosen).T
    scenes = Scenes(left, torch.full_like(left, -1), style, background)
    return to_images(scenes.render(corpus, generator))
