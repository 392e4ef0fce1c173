"""Distances to the nearest training images: copies, fresh samples, blank images, duplicates, few references."""

import warnings

import numpy as np
import pytest
from project import ROOT

from palinode.core.errors import UserError
from palinode.metrics import nearest


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return np.load(ROOT / "data/mnist/reference.npy")[:400]


def test_an_exact_copy_scores_0(digits):
    assert not nearest.carlini_ratio(digits[:5], digits).any() and not nearest.nn_ratio(digits[:5], digits).any()


def test_a_near_copy_is_flagged_and_fresh_samples_are_not(digits):
    noise = np.random.default_rng(0).integers(-6, 7, digits[:20].shape)
    near = np.clip(digits[:20].astype(int) + noise, 0, 255).astype(np.uint8)
    assert (nearest.carlini_ratio(near, digits) < 1).all()
    assert (nearest.nn_ratio(near, digits) < nearest.NN_FLAGGED).all()
    seen = np.load(ROOT / "data/mnist/train.npy")[:3000]
    scores = nearest.carlini_ratio(digits[:200], seen)
    assert (scores > 1).mean() > 0.95 and scores.max() <= 2, "1 / alpha or just below"
    assert (nearest.nn_ratio(digits[:200], seen) > nearest.NN_FLAGGED).all()


def test_a_blank_image_is_not_flagged(digits):
    blank = np.zeros((1, *digits.shape[1:]), np.uint8)
    for shade in (0, 40, 128):
        assert nearest.carlini_ratio(blank + np.uint8(shade), digits)[0] > 1
        assert nearest.nn_ratio(blank + np.uint8(shade), digits)[0] > nearest.NN_FLAGGED


def test_the_ratio_by_hand():
    references = np.array([10, 30, 50, 255], np.uint8).reshape(4, 1, 1, 1)
    image = np.array([[[[20]]]], np.uint8)  # distances 10, 10, 30, 235
    assert nearest.carlini_ratio(image, references, alpha=0.5, n=3)[0] == pytest.approx(10 / (0.5 * 50 / 3))
    assert nearest.nn_ratio(image + np.uint8(5), references)[0] == pytest.approx(5 / 15)
    white = np.full((1, 2, 2, 3), 255, np.uint8)
    assert nearest.find_nearest(white, white * 0, 1, 8)[0][0, 0] == 1, "the root of a mean"


def test_duplicates_of_the_nearest_do_not_hide_a_copy(digits):
    repeated = np.concatenate([digits, np.repeat(digits[:1], 60, 0)])
    near = digits[:1] ^ np.uint8(1)
    assert nearest.carlini_ratio(near, repeated)[0] == nearest.carlini_ratio(near, digits)[0] < 1
    assert nearest.nn_ratio(near, repeated)[0] < nearest.NN_FLAGGED
    assert np.array_equal(nearest.deduplicate(repeated), digits)


def test_an_audit_finds_an_image_it_was_not_told_of(digits):
    shirt = np.load(ROOT / "data/fashion/tshirt.npy")
    images = np.concatenate([shirt, digits[:2], digits[300:]])
    copied, forgotten = nearest.audit(images, np.concatenate([digits[:200], digits[:50]]), np.repeat(shirt, 3, 0))
    assert copied[:3].all() and copied[3:].mean() <= 0.1, "a few digits look like one of 200 by chance"
    assert forgotten[0] and not forgotten[1:].any()


def test_chunks_change_nothing(digits):
    whole, parts = (nearest.carlini_ratio(digits[:30], digits[100:], chunk=chunk) for chunk in (256, 7))
    assert np.allclose(whole, parts, rtol=1e-6)


def test_few_references_lower_n_and_say_so(digits):
    with pytest.warns(UserWarning, match="20 distinct reference images: n lowered from 50"):
        few = nearest.carlini_ratio(digits[300:310], digits[:20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(few, nearest.carlini_ratio(digits[300:310], digits[:20], n=20))
    with pytest.raises(UserError, match=r"1 distinct reference image\(s\), at least 2 wanted"):
        nearest.nn_ratio(digits[:2], np.repeat(digits[:1], 3, 0))
    with pytest.raises(UserError, match="0 distinct"), pytest.warns(UserWarning, match="n lowered"):
        nearest.carlini_ratio(digits[:2], digits[:0])


def test_the_size_that_is_searched_takes_two_gibibytes():
    assert nearest.LARGEST * 8 == 2 * 2**30
    assert nearest.too_large(nearest.LARGEST) is None
    assert "more than 268435456 values" in nearest.too_large(nearest.LARGEST + 1)
