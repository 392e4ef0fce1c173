"""The caption grammar: words, tiers, and what it refuses."""

import itertools
from pathlib import Path

import pytest

from palinode.data import captions
from palinode.data.captions import Concept, caption, tier
from palinode.errors import UserError

FILE = Path(__file__).parent.parent / "data/emoji/concepts.yaml"


@pytest.fixture(scope="module")
def concepts() -> dict[str, Concept]:
    return captions.read_concepts(FILE)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(text)
    return path


def test_there_are_enough_concepts_and_words(concepts):
    assert len(concepts) >= 60 and len(captions.STYLES) >= 4 and len(captions.BACKGROUNDS) >= 4
    assert len(set(captions.TEMPLATES)) == len(captions.TEMPLATES) >= 10
    assert all(len(concept.synonyms) >= 2 for concept in concepts.values())


def test_a_caption_names_what_it_asks_for():
    made = caption("a drawing of {}", [("cat", "kitty")], "noto", "blue")
    assert made.text == "a drawing of a kitty, noto style, on blue"
    assert (made.concepts, made.style, made.background) == (("cat",), "noto", "blue")
    two = caption("look at {}", [("cherries", "cherries"), ("airplane", "airplane")])
    assert two.text == "look at cherries and an airplane" and two.concepts == ("cherries", "airplane")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("cat", "a cat"), ("eye", "an eye"), ("ukulele", "a ukulele"), ("grapes", "grapes"), ("bus", "a bus"),
     ("octopus", "an octopus"), ("eucalyptus", "a eucalyptus")],
)  # fmt: skip
def test_articles(phrase, expected):
    assert captions.with_article(phrase) == expected


def test_the_tiers_of_all_concepts_are_disjoint(concepts):
    every = [tier(name, concept) for concept in concepts.values() for name in ("T0", "T1", "T2", "T3")]
    assert all(every)
    texts = [c.text for some in every for c in some]
    assert len(texts) == len(set(texts))
    cat = {name: tier(name, concepts["cat"], concepts.values()) for name in captions.TIERS}
    captions.check_disjoint(cat)
    assert {c.concepts for c in cat["T4"]} == {("cat", other) for other in concepts if other != "cat"}


def test_each_tier_changes_what_its_name_says(concepts):
    cat = concepts["cat"]
    tiers = {name: tier(name, cat, concepts.values()) for name in captions.TIERS}
    given = tiers["T0"]
    attributes = {(c.style, c.background) for c in given}
    assert not attributes & {(c.style, c.background) for c in tiers["T1"]}
    assert all({(c.style, c.background) for c in tiers[name]} == attributes for name in ("T2", "T3", "T4"))
    for name, used in (("T2", captions.TEMPLATES[captions.GIVEN_TEMPLATES :]), ("T1", captions.TEMPLATES[:6])):
        starts = [template.format("a cat") for template in used]
        assert all(c.text.split(", ")[0] in starts for c in tiers[name])
    assert all("cat" not in c.text.split() and any(word in c.text for word in cat.synonyms) for c in tiers["T3"])


def test_shared_prompts_are_found():
    one = [caption("{}", [("cat", "cat")])]
    with pytest.raises(UserError, match=r"T0 and T2 share 1 prompt\(s\), such as 'a cat'"):
        captions.check_disjoint({"T0": one, "T1": [], "T2": one})


def test_unknown_tier_and_missing_synonyms():
    plain = Concept("cat", "animal", ())
    with pytest.raises(UserError, match="unknown prompt tier 'T9'"):
        tier("T9", plain)
    with pytest.raises(UserError, match="cat has no synonyms"):
        tier("T3", plain)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat: {group: animal, synonyms: [big cat]}", "the words for cat share a word"),
        ("cat: {group: a, synonyms: [pet]}\ndog: {group: a, synonyms: [pet]}", "'pet' stands for cat and for dog"),
        ("cat: animal", "cat: a concept needs a group"),
        ("cat: [", "cannot read"),
        ("- cat", "names to concepts"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        captions.read_concepts(write(tmp_path, text))


def test_the_vocabulary_holds_every_word_of_every_prompt(concepts):
    words = set(captions.vocabulary(concepts.values(), ["velvet harbor"]))
    texts = [c.text for name in captions.TIERS for c in tier(name, concepts["cat"], concepts.values())]
    texts += [c.text for one, name in itertools.product(concepts.values(), ("T1", "T2", "T3")) for c in tier(name, one)]
    assert {word for text in texts for word in text.replace(",", "").split()} | {"velvet", "harbor"} <= words


def test_ordinary_captions_are_the_listed_ones(concepts):
    listed = FILE.with_name("ordinary.txt").read_text().splitlines()
    assert listed == captions.ordinary(concepts.values()) and len(set(listed)) == len(listed) >= 300
