"""The report's part on memorised prompts."""

import csv
from pathlib import Path

import numpy as np
import pytest
from project import ROOT

from palinode import io
from palinode.contact import write_png
from palinode.memorization import roc
from palinode.memorization.detectors import Cost
from palinode.memorization.prompts import Prompt
from palinode.metrics import record
from palinode.report import detection, page

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
    with open(folder / "scores.csv", "w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["prompt", "kind", "detector", "score"])
        for name, values in scores.items():
            table.writerows([*prompt, name, value] for prompt, value in zip(asked, values, strict=True))
    write_mitigation(root / "models/mini/mitigation", kinds)


def write_mitigation(folder: Path, kinds: dict[str, int]) -> None:
    """All prompts of memorised pictures flagged, none of the others; without such pictures a reason."""
    if "verbatim" not in kinds:
        io.write_json(folder / "metrics.json", {"reason": "no prompt is known to be memorised"})
        return
    flagged = {"flagged": 12, "below": 11, "norm": [3.5, 0.75], "copies": [record.share(48, 48), record.share(6, 48)]}
    found = {kind: {"prompts": count} | (flagged if kind in ("verbatim", "template") else {"flagged": 0})
             for kind, count in kinds.items()}  # fmt: skip
    io.write_json(folder / "metrics.json", {"target": 0.8125, "kinds": found})
    with open(folder / "prompts.csv", "w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["prompt", "kind", "before", "after", "words"])
        table.writerow([ODD, "verbatim", 3.5, 0.75, "<b>:0.700 ,:0.100 a:b:0.200"])
    write_png(folder / "pictures.png", np.zeros((4, 4, 3), np.uint8))


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("detection")
    write(root, {"verbatim": 12, "template": 12, "control": 10, "ordinary": 60})
    (found,) = detection.views(["mini"], root)
    assert found == detection.views(["mini"], root)[0], "the same bytes"
    return found


def test_the_table_has_every_score_with_its_cost(view):
    rows = dict(view["rows"])
    assert all(len(cells) == len(detection.HEADS) for cells in rows.values())
    value, interval = rows["noise_norm_all"][0]
    low, high = map(float, interval.split(" to "))
    assert low <= float(value) <= high and 0.98 < float(value) < 1
    assert rows["noise_norm_all"][-1] == ("200", "") and rows["sharpness"][-1] == ("16", "8 with a derivative")
    assert rows["noise_norm_all"][-2][1].startswith("TPR ") and "FPR" in rows["noise_norm_all"][-2][1]
    assert view["counts"] == "12 verbatim, 12 template, 10 control, 60 ordinary"
    assert view["settings"] == "generations 4, steps 25, guidance 3.0" and not view["reasons"]


def test_mitigation_is_a_line_a_kind_of_prompts(view):
    found = view["mitigation"]
    rows = dict(found["rows"])
    assert rows["verbatim"] == [("12 of 12", ""), ("3.50", ""), ("0.75", ""), ("11 of 12", ""),
                                ("100.0 %", "92.6 to 100.0"), ("12.5 %", "5.9 to 24.7")]  # fmt: skip
    assert rows["ordinary"] == [("0 of 60", "")] + [("–", "")] * 5
    assert found["words"] == [("verbatim", [("<b>", 0.7), (",", 0.1), ("a:b", 0.2)])]
    assert found["sheet"].startswith("data:image/png") and found["target"] == 0.8125


def test_the_figure_has_a_panel_a_score_and_one_of_curves(view):
    svg = view["figure"]
    assert all(f">{text}<" in svg for text in ("ROC: TPR by FPR", "noise_norm_all", "sharpness", "ordinary"))
    assert svg.startswith("<svg role") and "http" not in svg and "mini-detection-" in svg


def test_the_worst_prompts_are_shown_and_escaped(view):
    assert view["hardest"]["score"] == "noise_norm_all" and len(view["hardest"]["low"]) == detection.HARDEST
    assert view["hardest"]["high"][0].startswith(ODD + " (ordinary, ")
    html = page.render([], [], ROOT / "reference", {}, [], [view])
    assert "&lt;script&gt;alert" in html and "<script>" not in html and "{{ 1 }}" in html
    assert '<a href="#memorised">' in html and html.count("<svg") == 1


def test_no_base_has_no_section():
    assert "memorised" not in page.render([], [], ROOT / "reference", {}, [], []).lower()


@pytest.mark.parametrize("kinds", [{"unlabelled": 6}, {"ordinary": 6}, {"verbatim": 6}])
def test_prompts_of_one_kind_have_scores_but_no_curve(tmp_path, kinds):
    write(tmp_path, kinds)
    (found,) = detection.views(["mini"], tmp_path)
    assert found["hardest"] is None and found["reasons"] and dict(found["rows"])["sharpness"][:8] == [None] * 8
    html = page.render([], [], ROOT / "reference", {}, [], [found])
    assert "Not measured: no prompt is known" in html and "Prompts that" not in html
