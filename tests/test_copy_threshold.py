"""The tool that checks the thresholds of pixel copies."""

import json

import copy_threshold
import numpy as np
import pytest
from project import ROOT

from palinode.memorization.ground_truth import REPEATED
from palinode.metrics.copies import COPY


def test_precision_counts_copies_and_others_alike():
    copies = np.array([0.1, 0.2, 0.3, 0.4])
    others = np.array([0.25, 0.35] * 10)
    assert copy_threshold.precision(copies, others, 0.25) == 1
    assert copy_threshold.precision(copies, others, 0.35) == pytest.approx(0.75 / 1.25)
    assert np.isnan(copy_threshold.precision(copies, others, 0.05))
    assert copy_threshold.calibrate(copies, others) == 0.2
    assert copy_threshold.calibrate(copies, others + 1) == 0.4


def test_a_threshold_is_assessed_by_edit():
    by_edit = {"blur": np.array([0.1, 0.3]), "noise": np.array([0.1, 0.1])}
    entry = copy_threshold.assess(0.2, by_edit, np.array([0.1, 0.5, 0.5, 0.5]))
    assert entry["precision"] == pytest.approx(0.75 / (0.75 + 0.25))
    assert (entry["recall"]["value"], entry["recall"]["n"]) == (0.75, 4)
    assert entry["false_alarms"]["value"] == 0.25
    assert {name: share["value"] for name, share in entry["recall_by_edit"].items()} == {"blur": 0.5, "noise": 1}


def test_edits_keep_the_picture_and_change_it():
    picture = np.random.default_rng(0).integers(64, 192, (2, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    for name, edit in copy_threshold.EDITS.items():
        made = edit(picture)
        distance = np.sqrt(((made / 255 - picture / 255) ** 2).mean())
        assert made.shape == picture.shape
        assert made.dtype == np.uint8
        assert 0 < distance < 0.2, name


def test_the_thresholds_in_use_are_those_that_were_checked():
    results = json.loads((ROOT / copy_threshold.OUT).read_text())
    assert [used["threshold"] for used in results["used"]] == [COPY, REPEATED]
    assert results["largest_with_90_percent_precision"] > COPY
    assert results["used"][0]["precision"] > 0.9
    assert pytest.approx(results["largest_with_90_percent_precision"], abs=0.005) == REPEATED


def test_the_tool_finds_what_it_found_before(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(copy_threshold, "OUT", tmp_path / "copy-threshold.json")
    copy_threshold.run()
    again = json.loads((tmp_path / "copy-threshold.json").read_text())
    before = json.loads((ROOT / "results/copy-threshold.json").read_text())
    assert again["largest_with_90_percent_precision"] == pytest.approx(before["largest_with_90_percent_precision"])
    for new, old in zip(again["used"], before["used"], strict=True):
        assert new["precision"] == pytest.approx(old["precision"])
        assert new["recall_by_edit"].keys() == old["recall_by_edit"].keys()
