"""The report's part on memorized prompts."""

from pathlib import Path

import numpy as np
import pytest
from project import ROOT

from palinode.core import estimate, io
from palinode.data.prompt_lists import Prompt
from palinode.memorization import roc
from palinode.memorization.detectors import Cost
from palinode.report import page, pictures
from palinode.report.sections import detector_scores

COSTS = {"noise_norm_all": Cost(25), "sharpness": Cost(2, jvps=1)}
ODD = '<script>alert("x")</script> & {{ 1 }}, 100 %'


def write(root: Path, kinds: dict[str, int]) -> None:
    """What the stage writes for a base `mini`; the first score separates all but one ordinary prompt."""
    asked = [Prompt(f"{kind} {i}", kind) for kind, count in kinds.items() for i in range(count)]
    asked[-1] = Prompt(ODD, asked[-1].kind)
    rng = np.random.default_rng(0)
    high = np.array([prompt.kind in ("verbatim", "template") or prompt.text == ODD for prompt in asked])
    scores = {"noise_norm_all": high + rng.random(len(asked)) / 2, "sharpness": rng.random(len(asked))}
    settings = {"generations": 4, "steps": 25, "guidance": 3.0}
    folder = root / "models/mini/detect"
    io.write_json(folder / "metrics.json", roc.table(scores, asked, COSTS, 4) | {"settings": settings})
    lines = [
        {"prompt": prompt.text, "kind": prompt.kind, "detector": name, "score": float(value)}
        for name, values in scores.items()
        for prompt, value in zip(asked, values, strict=True)
    ]
    io.write_csv(folder / "scores.csv", lines, digits=17)
    write_mitigation(root / "models/mini/mitigation", kinds)


def write_mitigation(folder: Path, kinds: dict[str, int]) -> None:
    """All prompts of memorized pictures flagged, none of the others; without such pictures a reason."""
    if "verbatim" not in kinds:
        io.write_json(folder / "metrics.json", {"reason": "no prompt is known to be memorized"})
        return
    flagged = {
        "flagged": 12,
        "below": 11,
        "norm": [3.5, 0.75],
        "copies": [estimate.share(48, 48), estimate.share(6, 48)],
        "things": [],
    }
    measured = {
        kind: {"prompts": count} | (flagged if kind in ("verbatim", "template") else {"flagged": 0})
        for kind, count in kinds.items()
    }
    io.write_json(folder / "metrics.json", {"target": 0.8125, "kinds": measured})
    line = {"prompt": ODD, "kind": "verbatim", "before": 3.5, "after": 0.75, "words": "<b>:0.700 ,:0.100 a:b:0.200"}
    io.write_csv(folder / "prompts.csv", [line])
    (folder / "pictures.png").write_bytes(pictures.encode_png(pictures.EMPTY))


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("detection")
    write(root, {"verbatim": 12, "template": 12, "control": 10, "ordinary": 60})
    (shown,) = detector_scores.views(["mini"], root)
    assert shown == detector_scores.views(["mini"], root)[0], "the same bytes"
    return shown


def test_the_table_has_every_score_with_its_cost(view):
    rows = dict(view["rows"])
    assert all(len(cells) == len(view["heads"]) for cells in rows.values())
    value, interval = rows["noise_norm_all"][0]
    low, high = map(float, interval.split(" to "))
    assert low <= float(value) <= high and 0.98 < float(value) < 1
    assert rows["noise_norm_all"][-1] == ("200", "") and rows["sharpness"][-1] == ("16", "8 with a derivative")
    assert rows["noise_norm_all"][-2][1].startswith("TPR ") and "FPR" in rows["noise_norm_all"][-2][1]
    assert view["counts"] == "12 verbatim, 12 template, 10 control, 60 ordinary"
    assert view["settings"] == "generations 4, steps 25, guidance 3.0" and not view["reasons"]


def test_mitigation_is_a_line_a_kind_of_prompts(view):
    shown = view["mitigation"]
    rows = dict(shown["rows"])
    assert rows["verbatim"] == [
        ("12 of 12", ""),
        ("3.50", ""),
        ("0.75", ""),
        ("11 of 12", ""),
        ("100.0 %", "92.6 to 100.0"),
        ("12.5 %", "5.9 to 24.7"),
        ("–", ""),
        ("–", ""),
    ]
    assert rows["ordinary"] == [("0 of 60", "")] + [("–", "")] * 7
    assert shown["words"] == [("verbatim", [("<b>", 0.7), (",", 0.1), ("a:b", 0.2)])]
    assert shown["sheet"].startswith("data:image/png") and shown["target"] == 0.8125


def test_the_figure_has_a_panel_a_score_and_one_of_curves(view):
    svg = view["figure"]
    assert all(f">{text}<" in svg for text in ("ROC: TPR by FPR", "noise_norm_all", "sharpness", "ordinary"))
    assert svg.startswith("<svg role") and "http" not in svg and "mini-detection-" in svg


def test_the_worst_prompts_are_shown_and_escaped(view):
    assert view["hardest"]["score"] == "noise_norm_all" and len(view["hardest"]["low"]) == detector_scores.HARDEST
    assert view["hardest"]["high"][0].startswith(ODD + " (ordinary, ")
    html = page.render([], [], ROOT / "reference", {}, [], [view])
    assert "&lt;script&gt;alert" in html and "<script>" not in html and "{{ 1 }}" in html
    assert '<a href="#memorized">' in html and html.count("<svg") == 1


def test_no_base_has_no_section():
    html = page.render([], [], ROOT / "reference", {}, [], [])
    assert "Memorized prompts" not in html and "#memorized" not in html


@pytest.mark.parametrize("kinds", [{"unlabelled": 6}, {"ordinary": 6}, {"verbatim": 6}])
def test_prompts_of_one_kind_have_scores_but_no_curve(tmp_path, kinds):
    write(tmp_path, kinds)
    (shown,) = detector_scores.views(["mini"], tmp_path)
    assert shown["hardest"] is None and shown["reasons"] and dict(shown["rows"])["sharpness"][:8] == [None] * 8
    html = page.render([], [], ROOT / "reference", {}, [], [shown])
    assert "Not measured: no prompt is known" in html and "Prompts that" not in html
