"""The caption grammar: words, prompt sets, and what it refuses."""

import itertools
from pathlib import Path

import pytest
from conftest import EMOJI

from palinode.core.errors import UserError
from palinode.data import captions
from palinode.data.captions import PROMPT_SETS, Concept, caption, prompt_set

FILE = EMOJI / "concepts.yaml"
OF_ONE_THING = [name for name in PROMPT_SETS if name != "compositions"]


@pytest.fixture(scope="module")
def concepts() -> dict[str, Concept]:
    return captions.read_concepts(FILE)


@pytest.fixture(scope="module")
def cat_sets(concepts) -> dict[str, list[captions.Caption]]:
    return {name: prompt_set(name, concepts["cat"], concepts.values()) for name in PROMPT_SETS}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(text)
    return path


def test_there_are_enough_concepts_and_words(concepts):
    assert len(concepts) >= 60
    assert len(captions.STYLES) >= 4
    assert len(captions.BACKGROUNDS) >= 4
    assert len(set(captions.TEMPLATES)) == len(captions.TEMPLATES) >= 10
    assert all(len(concept.synonyms) >= 2 for concept in concepts.values())


def test_a_caption_names_what_it_asks_for():
    made = caption("a drawing of {}", [("cat", "kitty")], "noto", "blue")
    assert made.text == "a drawing of a kitty, noto style, on blue"
    assert (made.concepts, made.style, made.background) == (("cat",), "noto", "blue")
    two = caption("look at {}", [("cherries", "cherries"), ("airplane", "airplane")])
    assert two.text == "look at cherries and an airplane"
    assert two.concepts == ("cherries", "airplane")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("cat", "a cat"),
        ("eye", "an eye"),
        ("ukulele", "a ukulele"),
        ("grapes", "grapes"),
        ("bus", "a bus"),
        ("octopus", "an octopus"),
        ("eucalyptus", "a eucalyptus"),
    ],
)
def test_articles(phrase, expected):
    assert captions.with_article(phrase) == expected


def test_the_prompt_sets_of_all_concepts_are_disjoint(concepts, cat_sets):
    sets = [prompt_set(name, concept) for concept in concepts.values() for name in OF_ONE_THING]
    assert all(sets)
    texts = [c.text for captions_of_set in sets for c in captions_of_set]
    assert len(texts) == len(set(texts))
    captions.check_disjoint(cat_sets)
    pairs = {c.concepts for c in cat_sets["compositions"]}
    assert pairs == {("cat", other) for other in concepts if other != "cat"}


def test_each_prompt_set_changes_what_its_name_says(concepts, cat_sets):
    attributes = {name: {(c.style, c.background) for c in sets} for name, sets in cat_sets.items()}
    assert not attributes["training prompts"] & attributes["new attributes"]
    for name in ("new templates", "synonyms", "compositions"):
        assert attributes[name] == attributes["training prompts"]

    training = captions.TEMPLATES[: captions.TRAINING_TEMPLATES]
    new = captions.TEMPLATES[captions.TRAINING_TEMPLATES :]
    for name, templates in (("new templates", new), ("new attributes", training), ("training prompts", training)):
        starts = [template.format("a cat") for template in templates]
        assert all(c.text.split(", ")[0] in starts for c in cat_sets[name])

    synonyms = concepts["cat"].synonyms
    assert all("cat" not in c.text.split() for c in cat_sets["synonyms"])
    assert all(any(word in c.text for word in synonyms) for c in cat_sets["synonyms"])


def test_shared_prompts_are_found():
    shared = [caption("{}", [("cat", "cat")])]
    with pytest.raises(UserError, match="training prompts and new templates share 1, such as 'a cat'"):
        captions.check_disjoint({"training prompts": shared, "new attributes": [], "new templates": shared})


def test_unknown_prompt_set_and_missing_synonyms():
    plain = Concept("cat", "animal", ())
    with pytest.raises(UserError, match="unknown prompt set 'T9'; there are training prompts, new attributes"):
        prompt_set("T9", plain)
    with pytest.raises(UserError, match="cat has no synonyms"):
        prompt_set("synonyms", plain)


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


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.yaml"):
        captions.read_concepts(tmp_path / "nowhere.yaml")


def test_the_vocabulary_holds_every_word_of_every_prompt(concepts, cat_sets):
    words = set(captions.vocabulary(concepts.values(), ["velvet harbor"]))
    texts = [c.text for captions_of_set in cat_sets.values() for c in captions_of_set]
    for concept, name in itertools.product(concepts.values(), ("new attributes", "new templates", "synonyms")):
        texts += [c.text for c in prompt_set(name, concept)]
    used = {word for text in texts for word in text.replace(",", "").split()}
    assert used | {"velvet", "harbor"} <= words


def test_ordinary_captions_are_the_listed_ones(concepts):
    listed = FILE.with_name("ordinary.txt").read_text().splitlines()
    assert listed == captions.ordinary(concepts.values())
    assert len(set(listed)) == len(listed) >= 300
