"""The tool that checks the thresholds of pixel copies."""

import json

import copy_threshold
import numpy as np
import pytest
from project import ROOT

from palinode.memorization.ground_truth import REPEATED
from palinode.metrics.copies import COPY


def test_precision_counts_copies_and_others_alike():
    copies, others = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.25, 0.35] * 10)
    assert copy_threshold.precision(copies, others, 0.25) == 1
    assert copy_threshold.precision(copies, others, 0.35) == pytest.approx(0.75 / 1.25)
    assert np.isnan(copy_threshold.precision(copies, others, 0.05))
    assert copy_threshold.calibrated(copies, others) == 0.2
    assert copy_threshold.calibrated(copies, others + 1) == 0.4


def test_edits_keep_the_picture_and_change_it():
    picture = np.random.default_rng(0).integers(64, 192, (2, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    for name, edit in copy_threshold.EDITS.items():
        made = edit(picture)
        far = np.sqrt(((made / 255 - picture / 255) ** 2).mean())
        assert made.shape == picture.shape and made.dtype == np.uint8 and 0 < far < 0.2, name


def test_the_thresholds_in_use_are_those_that_were_checked():
    found = json.loads((ROOT / copy_threshold.OUT).read_text())
    assert [used["threshold"] for used in found["used"]] == [COPY, REPEATED]
    assert COPY < found["largest_with_90_percent_precision"] and found["used"][0]["precision"] > 0.9
    assert REPEATED == pytest.approx(found["largest_with_90_percent_precision"], abs=0.005)
