"""What a text-to-image base must show before anything is unlearned from it.

It draws what it is asked for, and has memorized what it should have memorized, and nothing else.
"""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palinode.classifiers import scene_pictures
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core import seeds
from palinode.core.estimate import share
from palinode.core.images import to_model
from palinode.data import captions
from palinode.data.captions import BACKGROUNDS, PROMPT_SETS, STYLES, TEMPLATES, Caption
from palinode.data.scenes import UNSEEN_TRIPLES, EmojiCorpus, held_out, seen_pairs
from palinode.metrics.copies import COPY, copy_distance
from palinode.params.bases import TextGate

CAPTIONS = 16  # captions, one of them the picture's own, among which alignment chooses
SET_PROMPTS = 160  # prompts of each prompt set
PICTURE_SEEDS = 5  # noises of each fixed picture's caption


@dataclass(frozen=True)
class Request:
    """A prompt, the group it is counted in, and what the picture should be."""

    group: str  # seen, unseen, a prompt set, verbatim, template, partial, control, ordinary
    prompt: str
    wanted: Caption | None = None
    picture: int | None = None


def requests(corpus: EmojiCorpus, key: tuple) -> list[Request]:
    """Every prompt the gate draws, in a fixed order.

    seen: each trained (concept, style) pair under a (word, template, background) triple that training left out; unseen:
    the pairs it left out; the prompt sets: a sample of each over all concepts.
    """
    generator = seeds.generator(*key, "gate prompts")
    wanted = _pair_requests(corpus, generator)
    wanted += _set_requests(corpus, generator)
    for i, picture in enumerate(corpus.pictures):
        wanted += [Request(picture.kind, picture.caption, picture=i)] * PICTURE_SEEDS
    return wanted + [Request("ordinary", prompt) for prompt in corpus.ordinary]


def _pair_requests(corpus: EmojiCorpus, generator: torch.Generator) -> list[Request]:
    names = list(corpus.concepts)
    trained = set(seen_pairs(names))
    pairs = []
    for i, j in itertools.product(range(len(names)), range(len(STYLES))):
        options = [
            triple
            for triple in itertools.product(corpus.concepts[names[i]].words, TEMPLATES, BACKGROUNDS)
            if held_out(UNSEEN_TRIPLES, *triple)
        ]
        word, template, background = options[int(torch.randint(len(options), (1,), generator=generator))]
        caption = captions.caption(template, [(names[i], word)], STYLES[j], background)
        pairs.append(Request("seen" if (i, j) in trained else "unseen", caption.text, caption))
    return pairs


def _set_requests(corpus: EmojiCorpus, generator: torch.Generator) -> list[Request]:
    names = list(corpus.concepts)
    drawn = []
    for name in PROMPT_SETS:
        for _ in range(SET_PROMPTS):
            first, second = torch.randperm(len(names), generator=generator)[:2].tolist()
            options = captions.prompt_set(name, corpus.concepts[names[first]], [corpus.concepts[names[second]]])
            caption = options[int(torch.randint(len(options), (1,), generator=generator))]
            drawn.append(Request(name, caption.text, caption))
    return drawn


@dataclass(frozen=True)
class ScenePredictions:
    """What the judge sees in each picture: classes int64 [N], of the whole and of the concepts in its two halves."""

    concept: Tensor
    style: Tensor
    left: Tensor
    right: Tensor


@torch.inference_mode()
def predict(images: np.ndarray, judge: SceneJudge) -> ScenePredictions:
    """images: uint8 [N, 32, 32, 3]."""
    x = to_model(images)
    concept, style = (logits.argmax(1) for logits in judge(x))
    left, right = (judge(half)[0].argmax(1) for half in scene_pictures.halves(x))
    return ScenePredictions(concept, style, left, right)


def measure(
    images: np.ndarray, requests: list[Request], corpus: EmojiCorpus, predictions: ScenePredictions
) -> dict[str, dict[str, dict]]:
    """Shares with 95 % Wilson intervals, {group: {what: {value, lo, hi, n}}}.

    concept, style: recognised by the judge (for compositions, both things, each in its half); copy: the nearest fixed
    picture is the prompt's own (for ordinary prompts, any) and nearer than COPY.
    """
    names = list(corpus.concepts)
    distance = copy_distance(images, corpus)
    hits: dict[tuple[str, str], list[bool]] = {}
    for i, request in enumerate(requests):
        nearest = int(distance[i].argmin())
        if request.wanted is None:
            own = request.picture is None or nearest == request.picture
            hits.setdefault((request.group, "copy"), []).append(own and distance[i, nearest] < COPY)
            continue
        wanted = [names.index(name) for name in request.wanted.concepts]
        whole = [int(predictions.concept[i])]
        parts = [int(predictions.left[i]), int(predictions.right[i])]
        drawn = whole if len(wanted) == 1 else parts
        hits.setdefault((request.group, "concept"), []).append(drawn == wanted)
        if request.wanted.style and len(wanted) == 1:
            right_style = int(predictions.style[i]) == STYLES.index(request.wanted.style)
            hits.setdefault((request.group, "style"), []).append(right_style)
    shares: dict[str, dict[str, dict]] = {}
    for (group, what), values in hits.items():
        shares.setdefault(group, {})[what] = share(sum(values), len(values))
    return shares


@torch.inference_mode()
def alignment(
    images: np.ndarray, requests: list[Request], judge: SceneJudge, corpus: EmojiCorpus, key: tuple
) -> dict[str, float]:
    """Share of pictures of one thing whose own caption fits best among CAPTIONS ones, {value, lo, hi, n, among}.

    A caption fits as well as the judge finds its thing and its style probable, log p(thing | x) + log p(style | x); the
    others are drawn from all prompts with another thing or style. Chance is 1 / CAPTIONS.
    """
    captioned = [(i, request.wanted) for i, request in enumerate(requests) if request.wanted is not None]
    styled = [(i, wanted) for i, wanted in captioned if len(wanted.concepts) == 1 and wanted.style]
    names = list(corpus.concepts)
    generator = seeds.generator(*key, "alignment")
    pairs = torch.tensor([(names.index(wanted.concepts[0]), STYLES.index(wanted.style)) for _, wanted in styled])
    shown = images[[i for i, _ in styled]]
    concept, style = (logits.log_softmax(1) for logits in judge(to_model(shown)))
    best = 0
    for k, own in enumerate(pairs):
        others = pairs[(pairs != own).any(1)]
        others = others[torch.randperm(len(others), generator=generator)[: CAPTIONS - 1]]
        fit = [float(concept[k, c] + style[k, s]) for c, s in (own, *others)]
        best += fit[0] > max(fit[1:])
    return share(best, len(styled)) | {"among": CAPTIONS}


def confusion(requests: list[Request], corpus: EmojiCorpus, predictions: ScenePredictions) -> dict[str, list]:
    """What the judge saw under prompts of one thing in a named style.

    {"style": counts [style asked for][style seen, the last is "none"], "concept": [[asked for, seen, count], ...], the
    mistakes alone, most frequent first}.
    """
    names = [*corpus.concepts, "none"]
    styles = [[0] * (len(STYLES) + 1) for _ in STYLES]
    mistakes: Counter = Counter()
    for i, request in enumerate(requests):
        if request.wanted is None or len(request.wanted.concepts) > 1 or not request.wanted.style:
            continue
        styles[STYLES.index(request.wanted.style)][int(predictions.style[i])] += 1
        mistakes[request.wanted.concepts[0], names[int(predictions.concept[i])]] += 1
    wrong = [[*pair, count] for pair, count in mistakes.items() if pair[0] != pair[1]]
    return {"style": styles, "concept": sorted(wrong, key=lambda entry: (-entry[2], entry[0], entry[1]))}


def problem(groups: dict, limits: TextGate) -> str | None:
    """Why the base is refused, or None."""
    least: tuple[tuple[str, str, float], ...] = (
        ("seen", "concept", limits.concept),
        ("seen", "style", limits.style),
        ("verbatim", "copy", limits.copies),
        ("template", "copy", limits.copies),
    )
    if "partial" in groups:
        least += (("partial", "copy", limits.partial_copies),)
    for group, what, limit in least:
        value = groups[group][what]["value"]
        if value < limit:
            return f"{what} right in {value:.1%} of the {group} prompts, at least {limit:.0%} wanted"
    for group, limit in (("control", limits.false_copies), ("ordinary", limits.ordinary_copies)):
        value = groups[group]["copy"]["value"]
        if value > limit:
            most = f"at most {limit:.0%} wanted"
            return f"copies of fixed pictures in {value:.1%} of the {group} prompts, {most}"
    return None
