"""What a text-to-image base must show before anything is unlearned from it: it draws what it is asked for, and has
memorised what it should have memorised, and nothing else."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palinode import scene_judge, seeds
from palinode.contact import sheet
from palinode.data import captions, emoji
from palinode.data.captions import BACKGROUNDS, STYLES, TEMPLATES, TIERS, Caption
from palinode.data.scenes import UNSEEN_TRIPLES, World, held_out, seen_pairs
from palinode.metrics.record import share
from palinode.models import to_images, to_model
from palinode.scene_judge import SceneJudge

CAPTIONS = 16  # captions, one of them the picture's own, among which alignment chooses
COPY = 0.08  # root mean squared difference below which a sample is a copy, pixels in [0, 1]; 0.15 in Carlini et al.
TIER_PROMPTS, PICTURE_SEEDS = 160, 5


@dataclass(frozen=True)
class Request:
    """A prompt, the group it is counted in, and what the picture should be."""

    group: str  # seen, unseen, a tier, verbatim, template, control, ordinary
    prompt: str
    wanted: Caption | None = None
    picture: int | None = None


def requests(world: World, key: tuple) -> list[Request]:
    """Every prompt the gate draws, in a fixed order.

    seen: each trained (concept, style) pair under a (word, template, background) triple that training left out; unseen:
    the pairs it left out; T0 to T4: a sample of each prompt tier over all concepts.
    """
    generator, names = seeds.generator(*key, "gate prompts"), list(world.concepts)
    seen = set(seen_pairs(names))
    triples = {
        name: [
            (word, template, background)
            for word, template, background in itertools.product(concept.words, TEMPLATES, BACKGROUNDS)
            if held_out(UNSEEN_TRIPLES, word, template, background)
        ]
        for name, concept in world.concepts.items()
    }
    found = []
    for i, j in itertools.product(range(len(names)), range(len(STYLES))):
        options = triples[names[i]]
        word, template, background = options[int(torch.randint(len(options), (1,), generator=generator))]
        wanted = captions.caption(template, [(names[i], word)], STYLES[j], background)
        found.append(Request("seen" if (i, j) in seen else "unseen", wanted.text, wanted))
    for tier in TIERS:
        for _ in range(TIER_PROMPTS):
            first, second = torch.randperm(len(names), generator=generator)[:2].tolist()
            some = captions.tier(tier, world.concepts[names[first]], [world.concepts[names[second]]])
            wanted = some[int(torch.randint(len(some), (1,), generator=generator))]
            found.append(Request(tier, wanted.text, wanted))
    for i, picture in enumerate(world.pictures):
        found += [Request(picture.kind, picture.caption, picture=i)] * PICTURE_SEEDS
    return found + [Request("ordinary", prompt) for prompt in captions.ordinary(world.concepts.values())]


def copy_distance(images: np.ndarray, world: World) -> np.ndarray:
    """Root mean squared difference of each image to each fixed picture, [N, pictures], pixels in [0, 1].

    The corner that a template varies is left out, for every picture alike.
    """
    pictures = emoji.fixed(world.fixed, world.pictures, world.stickers, torch.Generator())
    mask = torch.ones(pictures.shape[-2:])
    side = world.stickers.shape[-1]
    mask[-side:, -side:] = 0
    x = (to_model(images) / 2 + 0.5)[..., mask.bool()].flatten(1)
    y = pictures[..., mask.bool()].flatten(1)
    return (torch.cdist(x, y) / x.shape[1] ** 0.5).numpy()


@dataclass(frozen=True)
class Seen:
    """What the judge sees in each picture: classes int64 [N], of the whole and of the concepts in its two halves."""

    concept: Tensor
    style: Tensor
    left: Tensor
    right: Tensor


@torch.inference_mode()
def look(images: np.ndarray, judge: SceneJudge) -> Seen:
    """images: uint8 [N, 32, 32, 3]."""
    x = to_model(images)
    concept, style = (logits.argmax(1) for logits in judge(x))
    return Seen(concept, style, *(judge(half)[0].argmax(1) for half in scene_judge.halves(x)))


def measure(images: np.ndarray, asked: list[Request], world: World, seen: Seen) -> dict:
    """Shares with 95 % Wilson intervals, {group: {what: {value, lo, hi, n}}}.

    concept, style: recognised by the judge (for T4, both things, each in its half); copy: the nearest fixed picture is
    the prompt's own (for ordinary prompts, any) and nearer than COPY.
    """
    names = list(world.concepts)
    distance = copy_distance(images, world)
    hits: dict[tuple[str, str], list[bool]] = {}
    for i, request in enumerate(asked):
        nearest = int(distance[i].argmin())
        if request.wanted is None:
            own = request.picture is None or nearest == request.picture
            hits.setdefault((request.group, "copy"), []).append(own and distance[i, nearest] < COPY)
            continue
        wanted = [names.index(name) for name in request.wanted.concepts]
        got = [int(seen.concept[i])] if len(wanted) == 1 else [int(seen.left[i]), int(seen.right[i])]
        hits.setdefault((request.group, "concept"), []).append(got == wanted)
        if request.wanted.style and len(wanted) == 1:
            right_style = int(seen.style[i]) == STYLES.index(request.wanted.style)
            hits.setdefault((request.group, "style"), []).append(right_style)
    found: dict = {}
    for (group, what), values in hits.items():
        found.setdefault(group, {})[what] = share(sum(values), len(values))
    return found


@torch.inference_mode()
def alignment(images: np.ndarray, asked: list[Request], judge: SceneJudge, world: World, key: tuple) -> dict:
    """Share of pictures of one thing whose own caption fits best among CAPTIONS ones, {value, lo, hi, n, among}.

    A caption fits as well as the judge finds its thing and its style probable, log p(thing | x) + log p(style | x); the
    others are drawn from all prompts with another thing or style. Chance is 1 / CAPTIONS.
    """
    rows = [i for i, it in enumerate(asked) if it.wanted and len(it.wanted.concepts) == 1 and it.wanted.style]
    names, generator = list(world.concepts), seeds.generator(*key, "alignment")
    wanted = [asked[i].wanted for i in rows]
    pairs = torch.tensor([(names.index(it.concepts[0]), STYLES.index(it.style)) for it in wanted])
    concept, style = (logits.log_softmax(1) for logits in judge(to_model(images[rows])))
    best = 0
    for k, own in enumerate(pairs):
        others = pairs[(pairs != own).any(1)]
        others = others[torch.randperm(len(others), generator=generator)[: CAPTIONS - 1]]
        fit = [float(concept[k, c] + style[k, s]) for c, s in (own, *others)]
        best += fit[0] > max(fit[1:])
    return share(best, len(rows)) | {"among": CAPTIONS}


def confusion(asked: list[Request], world: World, seen: Seen) -> dict:
    """What the judge saw under prompts of one thing in a named style.

    {"style": counts [style asked for][style seen, the last is "none"], "concept": [[asked for, seen, count], ...], the
    mistakes alone, most frequent first}.
    """
    names, styles = [*world.concepts, "none"], [[0] * (len(STYLES) + 1) for _ in STYLES]
    mistakes: Counter = Counter()
    for i, request in enumerate(asked):
        if request.wanted is None or len(request.wanted.concepts) > 1 or not request.wanted.style:
            continue
        styles[STYLES.index(request.wanted.style)][int(seen.style[i])] += 1
        mistakes[request.wanted.concepts[0], names[int(seen.concept[i])]] += 1
    wrong = [[*pair, count] for pair, count in mistakes.items() if pair[0] != pair[1]]
    return {"style": styles, "concept": sorted(wrong, key=lambda it: (-it[2], it[0], it[1]))}


def sheets(images: np.ndarray, asked: list[Request], world: World) -> dict[str, np.ndarray]:
    """Contact sheets, uint8 [h, w, 3].

    concepts: five columns a thing, one a style; tiers: two rows each; memorized: each fixed picture (as it is without a
    sticker) and three samples of its caption.
    """
    groups = {name: [i for i, request in enumerate(asked) if request.group == name] for name in TIERS}
    pairs = [i for i, request in enumerate(asked) if request.group in ("seen", "unseen")]
    fixed = to_images(emoji.on_background(world.fixed, [picture.background for picture in world.pictures]) * 2 - 1)
    strips = []
    for k, picture in enumerate(fixed):
        samples = [i for i, request in enumerate(asked) if request.picture == k][:3]
        strips += [picture[None], images[samples]]
    return {
        "concepts": sheet(images[pairs], 4 * len(STYLES)),
        "tiers": sheet(images[[i for rows in groups.values() for i in rows[:40]]], 20),
        "memorized": sheet(np.concatenate(strips), 20),
    }


def problem(found: dict, limits) -> str | None:
    """Why the base is refused, or None. limits: concept, style, copies (at least), false_copies (at most)."""
    for group, what, limit in (("seen", "concept", limits.concept), ("seen", "style", limits.style),
                               ("verbatim", "copy", limits.copies), ("template", "copy", limits.copies)):  # fmt: skip
        value = found[group][what]["value"]
        if value < limit:
            return f"{what} right in {value:.1%} of the {group} prompts, at least {limit:.0%} wanted"
    for group in ("control", "ordinary"):
        value = found[group]["copy"]["value"]
        if value > limits.false_copies:
            most = f"at most {limits.false_copies:.0%} wanted"
            return f"copies of fixed pictures in {value:.1%} of the {group} prompts, {most}"
    return None
