"""Prompts of a concept task: what unlearning is given, and the strata on which forgetting and keeping are measured."""

import itertools
from dataclasses import dataclass

import torch

from palinode.data import captions
from palinode.data.captions import EMOJI, TIERS, Caption, Concept, Grammar
from palinode.data.scenes import held_out
from palinode.errors import UserError

KEPT = {
    "anchor": "what takes the target's place",
    "near": "kept things of the target's group; for a style, kept styles",
    "far": "kept things of other groups; none for a style",
    "other domain": "styles when a thing is forgotten, things when a style is",
    "empty": "the empty prompt",
}


@dataclass(frozen=True)
class Strata:
    """given: pairs (caption of the target, the same with the anchor), the only prompts of the target that unlearning
    sees; forget: captions of the target by tier; keep: captions of what stays, by stratum."""

    given: list[tuple[Caption, Caption]]
    forget: dict[str, list[Caption]]
    keep: dict[str, list[Caption]]

    @classmethod
    def from_json(cls, value: dict) -> "Strata":
        """The inverse of `dataclasses.asdict`, through JSON."""

        def caption(entry: dict) -> Caption:
            return Caption(entry["text"], tuple(entry["concepts"]), entry["style"], entry["background"])

        given = [(caption(one), caption(other)) for one, other in value["given"]]
        parts = ({k: [caption(it) for it in some] for k, some in value[part].items()} for part in ("forget", "keep"))
        return cls(given, *parts)


def of_captions(
    concepts: dict[str, Concept], target: str, anchor: str, each: int, generator: torch.Generator, grammar=EMOJI
) -> Strata:
    """Strata of a thing or a style, `each` captions in each, drawn at random, again and again where there are fewer;
    none without captions. UserError for a bad pair, and for strata that share a text."""
    thing, styles = target in concepts, grammar.styles.all
    check_pair(target, anchor, list(concepts) if thing else list(styles), [*concepts, *styles])
    tiers, kept = (_tiers_of_thing, _kept_things) if thing else (_tiers_of_style, _kept_styles)
    of_target, of_anchor = (tiers(grammar, concepts, *names) for names in ((target, anchor), (anchor, target)))
    given = list(zip(of_target["T0"], of_anchor["T0"], strict=True))
    keep = {"anchor": of_anchor["T2"]} | kept(grammar, concepts, target, anchor)
    forget, keep = ({k: _some(v, each, generator) for k, v in some.items() if v} for some in (of_target, keep))
    evaluated = {name: some for name, some in (forget | keep).items() if name != "T0"}
    captions.check_disjoint({"given": [caption for both in given for caption in both]} | evaluated)
    return Strata(given, forget, keep | {"empty": [Caption("", ())] * each})


def _kept_things(grammar: Grammar, concepts: dict[str, Concept], target: str, anchor: str) -> dict[str, list[Caption]]:
    kept, group = [it for name, it in concepts.items() if name not in (target, anchor)], concepts[target].group
    near = [c for concept in kept if concept.group == group for c in _unread(grammar, concept, (None,))]
    far = [c for concept in kept if concept.group != group for c in _unread(grammar, concept, (None,))]
    styled = [c for concept in kept for c in _unread(grammar, concept, grammar.styles.all)]
    return {"near": near, "far": far, "other domain": styled}


def _kept_styles(grammar: Grammar, concepts: dict[str, Concept], target: str, anchor: str) -> dict[str, list[Caption]]:
    styles = tuple(style for style in grammar.styles.all if style not in (target, anchor))
    things = list(concepts.values())
    return {"near": [c for concept in things for c in _unread(grammar, concept, styles)],
            "other domain": [c for concept in things for c in _unread(grammar, concept, (None,))]}  # fmt: skip


def of_classes(classes: int, target: int, anchor: int, each: int) -> Strata:
    """Strata of a class: a class has one prompt, its number, so there is one tier and no far or other domain."""
    check_pair(target, anchor, list(range(classes)), list(range(classes)))

    def caption(c: int) -> Caption:
        return Caption(str(c), (str(c),))

    others = sorted(set(range(classes)) - {target, anchor})
    near = {"near": [caption(c) for c in itertools.islice(itertools.cycle(others), each)]} if others else {}
    keep = {"anchor": [caption(anchor)] * each} | near | {"empty": [Caption("", ())] * each}
    return Strata([(caption(target), caption(anchor))], {"T0": [caption(target)] * each}, keep)


def check_pair(target, anchor, domain: list, known: list) -> None:
    """UserError unless both are known, of one domain, and two."""
    for role, name in (("target", target), ("anchor", anchor)):
        if name not in known:
            raise UserError(f"{role}: {name!r} is unknown; there are {', '.join(map(str, known))}")
    if target == anchor:
        raise UserError(f"target and anchor are both {target!r}: nothing would be forgotten")
    if anchor not in domain or target not in domain:
        raise UserError(f"target {target!r} and anchor {anchor!r} are not of one kind")


def _tiers_of_thing(grammar: Grammar, concepts: dict[str, Concept], name: str, other: str) -> dict[str, list[Caption]]:
    others = [concept for key, concept in concepts.items() if key not in (name, other)]
    return {tier: captions.tier(tier, concepts[name], others, grammar) for tier in TIERS}


def _tiers_of_style(grammar: Grammar, concepts: dict[str, Concept], style: str, _: str) -> dict[str, list[Caption]]:
    """T0: given templates and backgrounds, every other thing; T1: other backgrounds; T2: new templates; T3: other words
    for the thing, since a style has one name; T4: two things."""
    templates, grounds = grammar.templates, grammar.backgrounds
    known, things = (None, *grounds.given), list(concepts.values())[::2]

    def fill(words, templates, backgrounds) -> list[Caption]:
        return [grammar.caption(t, w, style, b) for w, t, b in itertools.product(words, templates, backgrounds)]

    own = [[(thing.name, thing.name)] for thing in things]
    return {
        "T0": fill(own, templates.given, known),
        "T1": fill(own, templates.given, grounds.new),
        "T2": fill(own, templates.new, known),
        "T3": fill([[(thing.name, word)] for thing in things for word in thing.synonyms], templates.given, known),
        "T4": fill([a + b for a, b in itertools.pairwise(own)], templates.given, known),
    }


def _triples(grammar: Grammar, concept: Concept, backgrounds: tuple, unread: bool) -> list[tuple]:
    """(word, template, background) triples that training leaves out, or those that it may read."""
    triples = itertools.product(concept.words, grammar.templates.all, backgrounds)
    return [it for it in triples if held_out(grammar.unread, *(part or "" for part in it)) == unread]


def _unread(grammar: Grammar, concept: Concept, styles: tuple) -> list[Caption]:
    """Captions that no training has read: held-out (word, template, background) triples, in those styles."""
    chosen = _triples(grammar, concept, grammar.backgrounds.all or (None,), unread=True)
    return [grammar.caption(t, [(concept.name, w)], s, b) for (w, t, b), s in itertools.product(chosen, styles)]


def readable(grammar: Grammar, concepts: dict[str, Concept], target: str, count: int, generator) -> list[str]:
    """`count` captions of one thing that training may read, drawn at random: of all things and styles but the target.
    Half of them name a style, where there are any."""
    kept, styles = ([name for name in names if name != target] for names in (concepts, grammar.styles.all))
    grounds, styles = (None, *grammar.backgrounds.all), [None] * max(1, len(styles)) + styles
    read = [(name, it) for name in kept for it in _triples(grammar, concepts[name], grounds, unread=False)]
    drawn = (torch.randint(len(some), (count,), generator=generator).tolist() for some in (read, styles))
    picked = [(*read[i], styles[j]) for i, j in zip(*drawn, strict=True)]
    return [grammar.caption(t, [(name, w)], style, b).text for name, (w, t, b), style in picked]


def _some(found: list, count: int, generator: torch.Generator) -> list:
    order = torch.randperm(len(found), generator=generator).tolist()
    return [found[i] for i in itertools.islice(itertools.cycle(order), count)]
