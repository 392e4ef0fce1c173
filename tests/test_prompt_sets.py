"""The prompts of concept tasks."""

import dataclasses
import json

import pytest
import torch
from conftest import EMOJI

from palinode.core.errors import UserError
from palinode.data import captions, prompt_sets
from palinode.data.captions import EMOJI as GRAMMAR
from palinode.data.captions import PROMPT_SETS, STYLES
from palinode.data.prompt_sets import NULL, RETAIN_SETS, SEED_NAMES, TRAINING, PromptSets
from palinode.data.scenes import UNSEEN_TRIPLES, held_out


@pytest.fixture(scope="module")
def concepts():
    return captions.read_concepts(EMOJI / "concepts.yaml")


def make(concepts, target: str, anchor: str, each: int = 64) -> PromptSets:
    return prompt_sets.of_captions(concepts, target, anchor, each, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("target", "anchor"), [("cat", "dog"), ("fluent", "noto"), ("airplane", "rocket")])
def test_sets_are_full_disjoint_and_name_what_they_should(concepts, target, anchor):
    sets = make(concepts, target, anchor)
    retained = set(RETAIN_SETS) - ({"far"} if target in STYLES else set())
    assert set(sets.forget) == set(PROMPT_SETS)
    assert set(sets.retain) == retained
    assert all(len(texts) == 64 for texts in sets.all.values())
    seen = {caption.text for pair in sets.training for caption in pair}
    for name, texts in sets.all.items():
        assert name == TRAINING or not seen & {caption.text for caption in texts}
    for texts in sets.forget.values():
        assert all(target in (*caption.concepts, caption.style) for caption in texts)
    for name, texts in sets.retain.items():
        assert not any(target in (*caption.concepts, caption.style) for caption in texts)
        assert name == "anchor" or not any(anchor in (*caption.concepts, caption.style) for caption in texts)


def test_sets_are_drawn_in_the_order_forget_then_retain(concepts):
    sets = make(concepts, "cat", "dog")
    assert list(sets.all) == [*PROMPT_SETS, *RETAIN_SETS]
    assert {caption.text for caption in sets.retain[NULL]} == {""}


def test_free_wording_is_no_caption_and_of_known_words(concepts):
    """None of it is in any prompt set of any thing; a tokenizer has a token for each of its words."""
    written = {
        caption.text
        for concept in concepts.values()
        for name in PROMPT_SETS
        for caption in captions.prompt_set(name, concept, list(concepts.values())[:2])
    }
    free = {caption.text for caption in make(concepts, "cat", "dog").retain[prompt_sets.FREE]}
    assert len(free) > 50 and not free & written
    known = set(captions.vocabulary(concepts.values()))
    assert all(set(text.split()) <= known for text in free)
    bare = dataclasses.replace(GRAMMAR, free=())
    sets = prompt_sets.of_captions(concepts, "cat", "dog", 4, torch.Generator().manual_seed(0), bare)
    assert prompt_sets.FREE not in sets.retain


def test_training_prompts_differ_in_the_target_alone(concepts):
    for target, anchor in (("cat", "dog"), ("fluent", "noto")):
        for of_target, of_anchor in make(concepts, target, anchor).training:
            assert of_target.text.replace(target, anchor) == of_anchor.text


def test_near_things_are_of_the_targets_group(concepts):
    retain = make(concepts, "cat", "dog").retain
    groups = {name: {concepts[caption.concepts[0]].group for caption in retain[name]} for name in ("near", "far")}
    assert groups["near"] == {"animal"}
    assert "animal" not in groups["far"]


def test_the_draw_depends_on_its_generator_alone(concepts):
    assert make(concepts, "cat", "dog") == make(concepts, "cat", "dog")


def test_a_set_survives_json(concepts):
    sets = make(concepts, "cat", "dog", each=4)
    assert PromptSets.from_json(json.loads(json.dumps(dataclasses.asdict(sets)))) == sets


@pytest.mark.parametrize(
    ("target", "anchor", "words"),
    [
        ("cta", "dog", "target: 'cta' is unknown; there are airplane"),
        ("cat", "", "anchor: '' is unknown"),
        ("cat", "cat", "both 'cat'"),
        ("cat", "noto", "not of one kind"),
        ("noto", "cat", "not of one kind"),
    ],
)
def test_a_bad_pair_is_refused(concepts, target, anchor, words):
    with pytest.raises(UserError, match=words):
        make(concepts, target, anchor)


def test_a_class_has_one_prompt():
    sets = prompt_sets.of_classes(10, 0, 6, each=8)
    assert [[caption.text for caption in pair] for pair in sets.training] == [["0", "6"]]
    assert set(sets.forget) == {TRAINING}
    assert {caption.text for caption in sets.retain["near"]} == set("12345789")
    assert len(sets.retain["anchor"]) == 8
    with pytest.raises(UserError, match="unknown"):
        prompt_sets.of_classes(10, 0, 10, each=8)


def test_two_classes_have_no_near_ones():
    assert set(prompt_sets.of_classes(2, 0, 1, each=3).retain) == {"anchor", NULL}


@pytest.mark.parametrize("target", ["cat", "noto"])
def test_readable_captions_are_neither_of_the_target_nor_held_out(concepts, target):
    generator = torch.Generator().manual_seed(0)
    texts = prompt_sets.readable(GRAMMAR, concepts, target, 400, generator)
    assert len(texts) == 400
    own = concepts[target].words if target in concepts else (target,)
    assert not any(word in text.replace(",", "").split() for text in texts for word in own)
    named = [text for text in texts if " style" in text]
    assert 0.4 < len(named) / 400 < 0.6
    unread = {
        GRAMMAR.caption(template, [("", word)], None, background).text
        for concept in concepts.values()
        for word in concept.words
        for template in captions.TEMPLATES
        for background in (None, *captions.BACKGROUNDS)
        if held_out(UNSEEN_TRIPLES, word, template, background or "")
    }
    assert unread
    assert not unread & (set(texts) - set(named))


def test_names_that_feed_a_seed_are_the_old_ones():
    """Draws must not change with what a set is called on the page."""
    old = [SEED_NAMES.get(name, name) for name in (*PROMPT_SETS, *RETAIN_SETS)]
    assert old == ["T0", "T1", "T2", "T3", "T4", "anchor", "near", "far", "other domain", "empty", "free wording"]
