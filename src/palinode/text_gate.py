"""What a text-to-image base must show before anything is unlearned from it: it draws what it is asked for, and has
memorised what it should have memorised, and nothing else."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from palinode import scene_judge, seeds
from palinode.data import captions, emoji
from palinode.data.captions import BACKGROUNDS, STYLES, TEMPLATES, TIERS, Caption
from palinode.data.scenes import UNSEEN_TRIPLES, World, held_out, seen_pairs
from palinode.metrics.record import wilson
from palinode.models import to_model
from palinode.scene_judge import SceneJudge

COPY = 0.08  # root mean squared difference below which a sample is a copy, pixels in [0, 1]; 0.15 in Carlini et al.
TIER_PROMPTS, PICTURE_SEEDS, ORDINARY = 160, 5, 320


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
    ordinary = [request for request in found if request.group in TIERS]
    picked = torch.randperm(len(ordinary), generator=generator)[:ORDINARY].tolist()
    return found + [Request("ordinary", ordinary[i].prompt) for i in picked]


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


@torch.inference_mode()
def measure(images: np.ndarray, asked: list[Request], world: World, judge: SceneJudge) -> dict:
    """Shares with 95 % Wilson intervals, {group: {what: {value, lo, hi, n}}}.

    concept, style: recognised by the judge (for T4, both things, each in its half); copy: the nearest fixed picture is
    the prompt's own (for ordinary prompts, any) and nearer than COPY.
    """
    names = list(world.concepts)
    x = to_model(images)
    concept, style = (logits.argmax(1) for logits in judge(x))
    left, right = (judge(half)[0].argmax(1) for half in scene_judge.halves(x))
    distance = copy_distance(images, world)
    hits: dict[tuple[str, str], list[bool]] = {}
    for i, request in enumerate(asked):
        nearest = int(distance[i].argmin())
        if request.wanted is None:
            own = request.picture is None or nearest == request.picture
            hits.setdefault((request.group, "copy"), []).append(own and distance[i, nearest] < COPY)
            continue
        wanted = [names.index(name) for name in request.wanted.concepts]
        got = [int(concept[i])] if len(wanted) == 1 else [int(left[i]), int(right[i])]
        hits.setdefault((request.group, "concept"), []).append(got == wanted)
        if request.wanted.style and len(wanted) == 1:
            right_style = int(style[i]) == STYLES.index(request.wanted.style)
            hits.setdefault((request.group, "style"), []).append(right_style)
    found: dict = {}
    for (group, what), values in hits.items():
        share = sum(values) / len(values)
        lo, hi = wilson(share, len(values))
        found.setdefault(group, {})[what] = {"value": share, "lo": lo, "hi": hi, "n": len(values)}
    return found


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
