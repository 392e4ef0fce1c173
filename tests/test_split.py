"""Splitting what a model draws under a memorized prompt: medoid, 2-means, modified prompts, what is flagged."""

import numpy as np
import pytest

from palinode.core import seeds
from palinode.memorization import splitting


@pytest.fixture
def pictures():
    """Six copies of one dark picture, slightly noisy, and four of a bright one."""
    rng = np.random.default_rng(0)
    base = np.repeat([40, 200], [6, 4])[:, None, None, None]
    return (base + rng.integers(0, 9, (10, 8, 8, 3))).astype(np.uint8)


def test_the_cluster_of_the_reference_is_memorized(pictures):
    for reference, memorized in ((0, np.arange(10) < 6), (9, np.arange(10) >= 6)):
        clusters = splitting.cluster(pictures, pictures[reference])
        assert (clusters.memorized(pictures) == memorized).all()
        assert clusters.centre_distance == pytest.approx(160 / 255, abs=0.01)
    assert clusters.memorized(np.full((1, 8, 8, 3), 180, np.uint8)).all()


@pytest.mark.parametrize("spread", [0, 3])
def test_pictures_that_are_all_alike_cannot_be_split(spread):
    images = (90 + np.random.default_rng(0).integers(0, spread + 1, (12, 8, 8, 3))).astype(np.uint8)
    assert "all pictures are alike" in splitting.cluster(images, images[0])


def test_the_medoid_is_amid_the_others(pictures):
    assert splitting.find_medoid(pictures) < 6
    assert splitting.find_medoid(pictures[[0, 9, 9]]) in (1, 2)


def test_words_are_left_out_first_then_put_in_at_each_place():
    assert splitting.shorten("a red b") == ["red b", "a b", "a red"]
    assert splitting.shorten("the the b") == ["the b", "the the"]
    assert splitting.shorten("alone") == []
    longer = splitting.lengthen("a b", ["x"], 7, seeds.generator("t"))
    assert longer == ["x a b", "a x b", "a b x"]
    words = ["x", "y", "z", "<b>"]
    again = [splitting.lengthen("a b", words, 9, seeds.generator("t")) for _ in range(2)]
    assert again[0] == again[1] and len(set(again[0])) == len(again[0])


def test_the_share_nearest_the_middle_wins_and_none_outside_the_range():
    share_range = (0.25, 0.9)
    assert splitting.choose_share([0.0, 0.5, 0.625, 0.65, 1.0], share_range) == 2
    assert splitting.choose_share([0.25, 0.9], share_range) == 0
    assert (
        splitting.choose_share([0.0, 0.2, 0.95], share_range) is None
        and splitting.choose_share([], share_range) is None
    )


def test_flagged_prompts_come_by_score_first_of_equals():
    assert splitting.rank_flagged(np.array([1.0, 3.0, 2.0, 3.0]), 2.0) == [1, 3, 2]
    assert splitting.rank_flagged(np.array([1.0]), 2.0) == []
