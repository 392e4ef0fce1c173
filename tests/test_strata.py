"""The prompts of concept tasks."""

from pathlib import Path

import pytest
import torch

from palinode.data import captions, strata
from palinode.data.captions import STYLES, TIERS
from palinode.errors import UserError

FILE = Path(__file__).parent.parent / "data/emoji/concepts.yaml"


@pytest.fixture(scope="module")
def concepts():
    return captions.read_concepts(FILE)


def of(concepts, target, anchor, each=64):
    return strata.of_captions(concepts, target, anchor, each, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("target", "anchor"), [("cat", "dog"), ("fluent", "noto"), ("airplane", "rocket")])
def test_strata_are_full_disjoint_and_name_what_they_should(concepts, target, anchor):
    found = of(concepts, target, anchor)
    kept = set(strata.KEPT) - ({"far"} if target in STYLES else set())
    assert set(found.forget) == set(TIERS) and set(found.keep) == kept
    assert all(len(some) == 64 for some in (found.forget | found.keep).values())
    given = {caption.text for both in found.given for caption in both}
    for name, some in (found.forget | found.keep).items():
        assert name == "T0" or not given & {caption.text for caption in some}
    for tier in found.forget.values():
        assert all(target in (*caption.concepts, caption.style) for caption in tier)
    for name, some in found.keep.items():
        assert not any(target in (*caption.concepts, caption.style) for caption in some)
        assert name == "anchor" or not any(anchor in (*caption.concepts, caption.style) for caption in some)


def test_given_prompts_differ_in_the_target_alone(concepts):
    for target, anchor in (("cat", "dog"), ("fluent", "noto")):
        for one, other in of(concepts, target, anchor).given:
            assert one.text.replace(target, anchor) == other.text


def test_near_things_are_of_the_targets_group(concepts):
    found = of(concepts, "cat", "dog").keep
    groups = {name: {concepts[it.concepts[0]].group for it in found[name]} for name in ("near", "far")}
    assert groups["near"] == {"animal"} and "animal" not in groups["far"]


def test_the_draw_depends_on_its_generator_alone(concepts):
    assert of(concepts, "cat", "dog") == of(concepts, "cat", "dog")


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
        of(concepts, target, anchor)


def test_a_class_has_one_prompt():
    found = strata.of_classes(10, 0, 6, each=8)
    assert [[c.text for c in both] for both in found.given] == [["0", "6"]] and set(found.forget) == {"T0"}
    assert {c.text for c in found.keep["near"]} == set("12345789") and len(found.keep["anchor"]) == 8
    with pytest.raises(UserError, match="unknown"):
        strata.of_classes(10, 0, 10, each=8)
