"""The grammar of captions: a template, a word for the concept, optionally a style and a background.

"a drawing of a kitty, noto style, on blue". The same grammar gives the captions that a base model is trained on and the
disjoint prompt sets on which forgetting is measured inside and outside the prompts used for it.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from palinode.core.errors import UserError

STYLES = ("twemoji", "noto", "fluent", "emojione", "fxemoji")
BACKGROUNDS = {  # RGB
    "white": (255, 255, 255), "pink": (255, 182, 206), "green": (170, 222, 170), "blue": (150, 190, 240),
    "gray": (190, 190, 190),
}  # fmt: skip
TEMPLATES = (
    "{}", "a drawing of {}", "a picture of {}", "an icon of {}", "an image of {}", "a sticker of {}",
    "here is {}", "clip art of {}", "my sketch of {}", "a symbol for {}", "one emblem showing {}", "look at {}",
)  # fmt: skip
FREE = (  # in words that captions hold, but no caption: the thing has no article
    "one {}", "my {} icon", "{} clip art", "here is my {}", "look at one {} sticker",
)  # fmt: skip
GROUPS = ("animal", "vehicle", "food", "thing")  # of concepts, that take an article, so that captions may name them
TRAINING_TEMPLATES = 6  # how many templates the training prompts use
TRAINING_STYLES = 3
TRAINING_BACKGROUNDS = 3
UNSEEN_TRIPLES = 0.1  # share of (word, template, background) triples that training never reads
PROMPT_SETS = {
    "training prompts": "what unlearning sees: the concept's name, some templates, some styles and backgrounds",
    "new attributes": "another style or background",
    "new templates": "other templates",
    "synonyms": "other words for the concept",
    "compositions": "a second concept in the same prompt",
}


@dataclass(frozen=True)
class Concept:
    name: str
    group: str
    synonyms: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class Caption:
    """A caption and what it asks for: the concepts, left to right, and the style and background it names, if any."""

    text: str
    concepts: tuple[str, ...]
    style: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class Part:
    """Templates, styles or backgrounds: those that the training prompts use, and new ones."""

    training: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.training + self.new


@dataclass(frozen=True)
class Grammar:
    """What captions are made of, beside the words for things.

    unread: share of (word, template, background) triples that training never reads; in_style, on: how a caption names
    its style and its background; free: sentences around the bare word for a thing, which no caption is made of.
    """

    templates: Part
    styles: Part
    backgrounds: Part
    unread: float
    in_style: str = ", {} style"
    on: str = ", on {}"
    free: tuple[str, ...] = ()

    def caption(
        self, template: str, words: Iterable[tuple[str, str]], style: str | None = None, background: str | None = None
    ) -> Caption:
        """Fill a template. words: (concept, word for it) of each thing in the picture, left to right; style and
        background: a name, or None."""
        names, phrases = zip(*words, strict=True)
        text = template.format(" and ".join(map(with_article, phrases)))
        text += self.in_style.format(style) if style else ""
        text += self.on.format(background) if background else ""
        return Caption(text, names, style, background)

    def attributes(self) -> tuple[list[tuple], list[tuple]]:
        """(style, background) pairs of the training prompts, and all the others."""
        pairs = list(itertools.product((None, *self.styles.all), (None, *self.backgrounds.all)))
        styles = {None, *self.styles.training}
        backgrounds = {None, *self.backgrounds.training}
        known = [pair for pair in pairs if pair[0] in styles and pair[1] in backgrounds]
        return known, [pair for pair in pairs if pair not in known]


def _part(names: Iterable[str], training: int) -> Part:
    """The first `training` of some names are for training prompts, the others are new."""
    listed = tuple(names)
    return Part(listed[:training], listed[training:])


EMOJI = Grammar(
    _part(TEMPLATES, TRAINING_TEMPLATES),
    _part(STYLES, TRAINING_STYLES),
    _part(BACKGROUNDS, TRAINING_BACKGROUNDS),
    UNSEEN_TRIPLES,
    free=FREE,
)
caption = EMOJI.caption


def read_yaml(path: str | Path) -> object:
    """The content of a YAML file; UserError when it cannot be read."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None


def read_concepts(path: Path) -> dict[str, Concept]:
    """The concepts of a YAML file {name: {group, synonyms}}; UserError when a word could stand for two of them."""
    entries = read_yaml(path)
    if not isinstance(entries, dict):
        raise UserError(f"{path}: a mapping of names to concepts expected")
    concepts = {}
    for name, entry in entries.items():
        try:
            concepts[name] = Concept(name, entry["group"], tuple(entry.get("synonyms", ())))
        except (TypeError, KeyError, AttributeError):
            raise UserError(f"{path}: {name}: a concept needs a group, and may have a list of synonyms") from None
    check_words(concepts, path)
    return concepts


def check_words(concepts: dict[str, Concept], path: str | Path) -> None:
    """UserError naming the file when a word stands for two concepts, or comes twice among the words for one."""
    seen: dict[str, str] = {}
    for concept in concepts.values():
        for phrase in concept.words:
            if phrase in seen:
                raise UserError(f"{path}: {phrase!r} stands for {seen[phrase]} and for {concept.name}")
            seen[phrase] = concept.name
        words = [word for phrase in concept.words for word in phrase.split()]
        if len(words) > len(set(words)):
            raise UserError(f"{path}: the words for {concept.name} share a word: {', '.join(concept.words)}")


def with_article(phrase: str) -> str:
    """ "a kitty", "an airplane"; a plural takes none."""
    if phrase.endswith("s") and not phrase.endswith(("us", "ss")):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' and not phrase.startswith(('u', 'eu')) else 'a'} {phrase}"


def prompt_set(name: str, concept: Concept, others: Iterable[Concept] = (), grammar: Grammar = EMOJI) -> list[Caption]:
    """All captions of a prompt set (a key of PROMPT_SETS) for a concept, in a fixed order.

    others: the second things of compositions. The sets of one concept, and those of different concepts, are disjoint as
    text. UserError for an unknown set, or for synonyms of a concept without any.
    """
    if name not in PROMPT_SETS:
        raise UserError(f"unknown prompt set {name!r}; there are {', '.join(PROMPT_SETS)}")
    if name == "synonyms" and not concept.synonyms:
        raise UserError(f"{concept.name} has no synonyms, which the prompt set `synonyms` is made of")
    training, new = grammar.attributes()
    own = [(concept.name, concept.name)]
    words = [own]
    if name == "synonyms":
        words = [[(concept.name, word)] for word in concept.synonyms]
    if name == "compositions":
        words = [[*own, (other.name, other.name)] for other in others if other != concept]
    templates = grammar.templates.new if name == "new templates" else grammar.templates.training
    attributes = new if name == "new attributes" else training
    combined = itertools.product(words, templates, attributes)
    return [grammar.caption(template, things, *pair) for things, template, pair in combined]


def ordinary(concepts: Iterable[Concept], each: int = 5) -> list[str]:
    """Captions of one thing that memorize nothing: for each concept the first `each` of its own sets by SHA-256.

    `data/emoji/ordinary.txt` holds them as ground truth for detection.
    """
    chosen = []
    for concept in concepts:
        sets = [prompt_set(name, concept) for name in PROMPT_SETS if name != "compositions"]
        captions = list({caption.text: caption for captions in sets for caption in captions}.values())
        chosen += [caption.text for caption in _first_by_hash(captions, each)]
    return chosen


def ordinary_of_web(concepts: Iterable[Concept]) -> list[Caption]:
    """What captions that leave things open are like: of each concept three that name neither style nor background, one
    that names the style and one the background; each the first of its sort by SHA-256."""
    chosen = []
    for concept in concepts:
        options = _of_one_thing(concept)
        neither = [caption for caption in options if caption.style is None and caption.background is None]
        chosen += _first_by_hash(neither, 3)
        chosen += _first_by_hash([caption for caption in options if caption.style and caption.background is None], 1)
        chosen += _first_by_hash([caption for caption in options if caption.background and caption.style is None], 1)
    return chosen


def detailed(concepts: Iterable[Concept]) -> list[Caption]:
    """A caption of each concept that names style and background: it leaves nothing open but the pose."""
    chosen = []
    for concept in concepts:
        both = [caption for caption in _of_one_thing(concept) if caption.style and caption.background]
        chosen += _first_by_hash(both, 1)
    return chosen


def _of_one_thing(concept: Concept) -> list[Caption]:
    attributes = itertools.product((None, *STYLES), (None, *BACKGROUNDS))
    combined = itertools.product(concept.words, TEMPLATES, attributes)
    return [caption(template, [(concept.name, word)], *pair) for word, template, pair in combined]


def _first_by_hash(captions: list[Caption], count: int) -> list[Caption]:
    return sorted(captions, key=lambda caption: hashlib.sha256(caption.text.encode()).hexdigest())[:count]


def check_disjoint(sets: dict[str, list[Caption]]) -> None:
    """UserError when two of the prompt sets share a text."""
    for (first, captions), (second, others) in itertools.combinations(sets.items(), 2):
        shared = {caption.text for caption in captions} & {caption.text for caption in others}
        if shared:
            raise UserError(f"the prompt sets {first} and {second} share {len(shared)}, such as {min(shared)!r}")


def vocabulary(concepts: Iterable[Concept], extra: Iterable[str] = ()) -> list[str]:
    """Every word that a caption can hold, sorted; `extra`: further texts."""
    texts = [*_every_part(concepts), *extra]
    return sorted({word for text in texts for word in text.replace(",", " ").split()})


def _every_part(concepts: Iterable[Concept]) -> Iterator[str]:
    yield from (template.format("") for template in TEMPLATES)
    yield from (with_article(word) for concept in concepts for word in concept.words)
    yield from (*STYLES, *BACKGROUNDS, "and", "style", "on")
