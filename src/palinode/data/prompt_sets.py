"""Prompts of a concept task: what unlearning sees, and the sets on which forgetting and retaining are measured."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from palinode.core.errors import UserError
from palinode.data import captions
from palinode.data.captions import EMOJI, PROMPT_SETS, Caption, Concept, Grammar
from palinode.data.scenes import held_out

TRAINING = "training prompts"
NULL = "null prompt"
ANCHOR = "anchor"
FREE = "free wording"
RETAIN_SETS = {
    "anchor": "what takes the target's place",
    "near": "retained things of the target's group; for a style, retained styles",
    "far": "retained things of other groups; none for a style",
    "other domain": "styles when a thing is forgotten, things when a style is",
    NULL: "the empty prompt",
    FREE: "retained things in sentences that no caption is made of",
}
# What a set is called where its name feeds a seed: names on the page may change, draws may not.
SEED_NAMES = {
    TRAINING: "T0",
    "new attributes": "T1",
    "new templates": "T2",
    "synonyms": "T3",
    "compositions": "T4",
    NULL: "empty",
}


@dataclass(frozen=True)
class PromptSets:
    """Prompts of one subject of a concept task.

    training: pairs (caption of the target, the same with the anchor), the only prompts of the target that unlearning
    sees; forget: captions of the target by prompt set; retain: captions of what stays, by prompt set.
    """

    training: list[tuple[Caption, Caption]]
    forget: dict[str, list[Caption]]
    retain: dict[str, list[Caption]]

    @property
    def all(self) -> dict[str, list[Caption]]:
        """Every set that is measured, in the order in which it is drawn."""
        return self.forget | self.retain

    @classmethod
    def from_json(cls, value: dict) -> "PromptSets":
        """The inverse of `dataclasses.asdict`, through JSON."""

        def caption(entry: dict) -> Caption:
            return Caption(entry["text"], tuple(entry["concepts"]), entry["style"], entry["background"])

        def sets(part: dict) -> dict[str, list[Caption]]:
            return {name: [caption(entry) for entry in entries] for name, entries in part.items()}

        training = [(caption(target), caption(anchor)) for target, anchor in value["training"]]
        return cls(training, sets(value["forget"]), sets(value["retain"]))


def of_captions(
    concepts: dict[str, Concept],
    target: str,
    anchor: str,
    each: int,
    generator: torch.Generator,
    grammar: Grammar = EMOJI,
) -> PromptSets:
    """Prompt sets of a thing or a style, `each` captions in each, drawn at random; a set without captions is left out.

    Captions are drawn again and again where there are fewer. UserError for a bad pair, and for sets that share a text.
    """
    is_thing = target in concepts
    styles = grammar.styles.all
    check_pair(target, anchor, list(concepts) if is_thing else list(styles), [*concepts, *styles])
    sets_of = _sets_of_thing if is_thing else _sets_of_style
    retained = _retained_things if is_thing else _retained_styles
    of_target = sets_of(grammar, concepts, target, anchor)
    of_anchor = sets_of(grammar, concepts, anchor, target)
    training = list(zip(of_target[TRAINING], of_anchor[TRAINING], strict=True))
    others = {"anchor": of_anchor["new templates"]} | retained(grammar, concepts, target, anchor)
    free = _free_wording(grammar, [concept for name, concept in concepts.items() if name not in (target, anchor)])
    forget = {name: _draw(texts, each, generator) for name, texts in of_target.items() if texts}
    retain = {name: _draw(texts, each, generator) for name, texts in others.items() if texts}
    retain[NULL] = [Caption("", ())] * each
    if free:
        retain[FREE] = _draw(free, each, generator)
    measured = {name: texts for name, texts in (forget | retain).items() if name not in (TRAINING, NULL)}
    seen = [caption for pair in training for caption in pair]
    captions.check_disjoint({"training": seen} | measured)
    return PromptSets(training, forget, retain)


def of_classes(classes: int, target: int, anchor: int, each: int) -> PromptSets:
    """Prompt sets of a class: a class has one prompt, its number, so that there is no far or other domain."""
    check_pair(target, anchor, list(range(classes)), list(range(classes)))

    def caption(number: int) -> Caption:
        return Caption(str(number), (str(number),))

    others = sorted(set(range(classes)) - {target, anchor})
    near = {"near": [caption(c) for c in itertools.islice(itertools.cycle(others), each)]} if others else {}
    retain = {"anchor": [caption(anchor)] * each} | near | {NULL: [Caption("", ())] * each}
    return PromptSets([(caption(target), caption(anchor))], {TRAINING: [caption(target)] * each}, retain)


def check_pair(target: object, anchor: object, domain: Sequence, known: Sequence) -> None:
    """UserError unless both are known, of one domain, and two."""
    for role, name in (("target", target), ("anchor", anchor)):
        if name not in known:
            raise UserError(f"{role}: {name!r} is unknown; there are {', '.join(map(str, known))}")
    if target == anchor:
        raise UserError(f"target and anchor are both {target!r}: nothing would be forgotten")
    if anchor not in domain or target not in domain:
        raise UserError(f"target {target!r} and anchor {anchor!r} are not of one kind")


def readable(
    grammar: Grammar, concepts: dict[str, Concept], target: str, count: int, generator: torch.Generator
) -> list[str]:
    """`count` captions of one thing that training may read, drawn at random: of all things and styles but the target.

    Half of them name a style, where there are any.
    """
    things = [name for name in concepts if name != target]
    named = [style for style in grammar.styles.all if style != target]
    styles = [None] * max(1, len(named)) + named
    backgrounds = (None, *grammar.backgrounds.all)
    triples = [(name, triple) for name in things for triple in _triples(grammar, concepts[name], backgrounds, False)]
    rows = torch.randint(len(triples), (count,), generator=generator).tolist()
    columns = torch.randint(len(styles), (count,), generator=generator).tolist()
    texts = []
    for row, column in zip(rows, columns, strict=True):
        name, (word, template, background) = triples[row]
        texts.append(grammar.caption(template, [(name, word)], styles[column], background).text)
    return texts


def ending_in(grammar: Grammar, name: str, things: list[str]) -> list[str]:
    """A prompt in each of the training templates that ends in a name: of a thing, or of a style after some thing."""
    templates = grammar.templates.training
    if name in things:
        return [template.partition("{}")[0] + captions.with_article(name) for template in templates]
    before, _, _ = grammar.in_style.partition("{}")
    shown = zip(templates, itertools.cycle(things), strict=False)
    return [template.format(captions.with_article(thing)) + before + name for template, thing in shown]


def _retained_things(
    grammar: Grammar, concepts: dict[str, Concept], target: str, anchor: str
) -> dict[str, list[Caption]]:
    retained = [concept for name, concept in concepts.items() if name not in (target, anchor)]
    group = concepts[target].group
    return {
        "near": [c for concept in retained if concept.group == group for c in _unread(grammar, concept, (None,))],
        "far": [c for concept in retained if concept.group != group for c in _unread(grammar, concept, (None,))],
        "other domain": [c for concept in retained for c in _unread(grammar, concept, grammar.styles.all)],
    }


def _retained_styles(
    grammar: Grammar, concepts: dict[str, Concept], target: str, anchor: str
) -> dict[str, list[Caption]]:
    styles = tuple(style for style in grammar.styles.all if style not in (target, anchor))
    things = list(concepts.values())
    return {
        "near": [c for concept in things for c in _unread(grammar, concept, styles)],
        "other domain": [c for concept in things for c in _unread(grammar, concept, (None,))],
    }


def _sets_of_thing(grammar: Grammar, concepts: dict[str, Concept], name: str, other: str) -> dict[str, list[Caption]]:
    others = [concept for key, concept in concepts.items() if key not in (name, other)]
    return {part: captions.prompt_set(part, concepts[name], others, grammar) for part in PROMPT_SETS}


def _sets_of_style(grammar: Grammar, concepts: dict[str, Concept], style: str, _: str) -> dict[str, list[Caption]]:
    """Of every other thing; synonyms are other words for the thing, since a style has one name."""
    templates = grammar.templates
    backgrounds = grammar.backgrounds
    known = (None, *backgrounds.training)
    things = list(concepts.values())[::2]

    def fill(words: list, templates: tuple[str, ...], backgrounds: tuple) -> list[Caption]:
        combined = itertools.product(words, templates, backgrounds)
        return [grammar.caption(template, named, style, background) for named, template, background in combined]

    own = [[(thing.name, thing.name)] for thing in things]
    synonyms = [[(thing.name, word)] for thing in things for word in thing.synonyms]
    neighbours = [first + second for first, second in itertools.pairwise(own)]
    return {
        TRAINING: fill(own, templates.training, known),
        "new attributes": fill(own, templates.training, backgrounds.new),
        "new templates": fill(own, templates.new, known),
        "synonyms": fill(synonyms, templates.training, known),
        "compositions": fill(neighbours, templates.training, known),
    }


def _triples(grammar: Grammar, concept: Concept, backgrounds: tuple, unread: bool) -> list[tuple]:
    """(word, template, background) triples that training leaves out, or those that it may read."""
    triples = itertools.product(concept.words, grammar.templates.all, backgrounds)
    return [triple for triple in triples if held_out(grammar.unread, *(part or "" for part in triple)) == unread]


def _unread(grammar: Grammar, concept: Concept, styles: tuple) -> list[Caption]:
    """Captions that no training has read: held-out (word, template, background) triples, in those styles."""
    chosen = _triples(grammar, concept, grammar.backgrounds.all or (None,), unread=True)
    return [
        grammar.caption(template, [(concept.name, word)], style, background)
        for (word, template, background), style in itertools.product(chosen, styles)
    ]


def _free_wording(grammar: Grammar, retained: list[Concept]) -> list[Caption]:
    words = [(concept.name, word) for concept in retained for word in concept.words]
    return [
        Caption(sentence.format(word), (name,)) for (name, word), sentence in itertools.product(words, grammar.free)
    ]


def _draw(texts: list[Caption], count: int, generator: torch.Generator) -> list[Caption]:
    order = torch.randperm(len(texts), generator=generator).tolist()
    return [texts[i] for i in itertools.islice(itertools.cycle(order), count)]
