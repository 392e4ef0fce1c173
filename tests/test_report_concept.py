"""The report of a concept task: what is shown of a row that did not erase, the strips by stratum, claims that apply."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_report_build import make_run, metric

from palinode import io
from palinode.report import build, claims, collect, page, strengths, tables

STRATA = ("T0", "anchor", "near", "empty")
EACH = 20
TRAINING = {"lr": 2e-4, "steps": 10, "batch": 8, "accumulate": 1}
ROWS = {  # name: (paper's id, UA on T0, near right, integrity)
    "finetune": ("finetune", 0.05, 0.97, 0.9),
    "salun": ("salun", 0.95, 0.9, 0.6),
    "erasediff-rl": ("erasediff_rl", 0.9, 0.93, 0.7),
    "uce": (None, 0.85, 0.8, 0.5),
}


def write(root):
    """Cells of a task that forgets a class; returns the settings of its rows."""
    rng = np.random.default_rng(2)
    captions = {name: [{"text": name if name != "empty" else ""}] * EACH for name in STRATA}
    strata = {"forget": {"T0": captions.pop("T0")}, "keep": captions}
    io.write_json(root / "out/data/mnist-zero/strata.json", strata)
    for name, (_, ua, near, integrity) in ROWS.items() | {
        ("base", (None, 0.01, 0.98, 1.0)), ("oracle", (None, 1.0, 0.98, 0.1)), ("other", (None, 0.01, 0.98, 0.0)),
    }:  # fmt: skip
        folder = root / "out/cells/mnist-zero" / name / "0"
        values = {"ua_t0": ua, "right_near": near, "target_probability": 1 - ua, "integrity_near_judge": integrity}
        entries = {key: metric(value, 0.01) for key, value in values.items()} | {"fid_kept_judge": metric(2.5, 0.1)}
        if name in ROWS:
            for way in ("forward", "backward"):
                entries[f"{way}_passes"] = metric(0.0 if name == "uce" else 160.0, 0, "down", "none")
            losses = "step\n0\n" if name == "uce" else "step,loss_r,loss_f\n0,3,2\n9,2,1\n"
            io.write_text(folder / "training.csv", losses)
        io.write_json(folder / "evaluation/metrics.json", entries)
        drawn = {key: entry["value"] + 0.01 * rng.normal(size=50) for key, entry in entries.items() if entry["lo"]}
        io.write_arrays(folder / "evaluation/replicates.npz", drawn)
        images = rng.integers(0, 256, (EACH * len(STRATA), 16, 16, 1), np.uint8)
        io.write_array(folder / "samples/samples.npy", images)
    return {name: {"method": name, "paper": paper, "options": {}, "training": TRAINING}
            for name, (paper, *_) in ROWS.items()}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("concept")
    settings = make_run(root)
    settings["families"]["mnist-zero"] = "concept"
    settings["tasks"]["mnist-zero"] = write(root)
    return root, collect.collect(settings, root)[1], build.build(settings, root)


def test_a_report_without_data_tasks_shows_the_target_s_prompts(tmp_path):
    shutil.copytree(Path(__file__).parent.parent / "reference", tmp_path / "reference")
    rows = write(tmp_path)
    build.build({"families": {"mnist-zero": "concept"}, "tasks": {"mnist-zero": rows}, "seeds": [0]}, tmp_path)
    image = Image.open(tmp_path / "results/figure.png")
    assert image.width / image.height == pytest.approx(16 / (len(rows) + 2), rel=0.3), "a column a prompt, a line a row"
    assert len((tmp_path / "results/plots/pareto.csv").read_text().splitlines()) == 1


def test_what_a_row_keeps_is_not_shown_unless_it_erased(built):
    root, task, _ = built
    papers = {table["id"]: table for table in claims.read_tables(root / "reference")}
    shown = tables.main_table(task, papers, claims.read_mapping(root / "reference"))
    near = [column.metric for column in shown.columns].index("right_near")
    cells = {name: row[near] for name, _, row in shown.rows}
    assert cells["finetune"].interval == "did not erase" and cells["finetune"].value == "–"
    assert cells["salun"].value == "90" and cells["base"].value == "98"


def test_claims_apply_only_to_rows_that_erased(built):
    root, task, _ = built
    results = {result.claim["id"]: result for result in claims.evaluate([task], root / "reference")}
    assert results["small-concept-finetune"].verdict == "holds"
    assert results["small-concept-integrity-1"].verdict == "holds"
    assert results["small-concept-integrity-4"].verdict == "untested"
    assert results["small-concept-erasediff-2"].verdict == "holds"
    mapping = claims.read_mapping(root / "reference")
    needy = {"id": "c", "check": "salun.ua > 0", "requires": "finetune.ua >= 0.8"}
    result = claims.assess(task, mapping, {"id": "small_concept", "rows": {}}, needy)
    assert result.verdict == "untested" and "here finetune.ua = 0.05" in result.reason


def test_rows_at_equal_forgetting_are_shown_where_they_were_compared(built):
    root, task, _ = built
    assert strengths.view(task) is None and "At equal forgetting" not in (root / "report/index.html").read_text()
    ends = {metric: {"value": 0.5, "lo": -0.25, "hi": 0.75} for metric in ("strength", *strengths.KEPT)}
    points = [{"row": row, "strength": s, "ua_t0": s, **dict.fromkeys(strengths.KEPT, s)}
              for row in ("salun", "uce") for s in (0.5, 1.0)]  # fmt: skip
    matched = [{"row": "salun", "strengths": [0.5, 1.0], "reached": 0.5} | ends,
               {"row": "uce", "strengths": [1.0], "outside": "UA 8%, not across the level"}]  # fmt: skip
    found = {"commit": "0" * 40, "level": 0.9, "seeds": [0, 1], "points": points, "matched": matched}
    io.write_json(root / strengths.FOLDER / "mnist-zero.json", found)
    shown = strengths.view(task)
    assert shown["caption"] == "At UA 90% on T0 (code of commit 000000000000, seeds 0, 1)"
    assert shown["rows"][0][2:4] == ["0.50 [−0.25, 0.75] (in 50% of the replicates)", "0.50 [−0.25, 0.75]"]
    assert shown["rows"][1][2:] == ["UA 8%, not across the level", "–", "–", "–", "–"]
    html = page.render([task], [], root / "reference", {}, [], [])
    assert html.count("At equal forgetting") == 1 and "mnist-zero-strengths-" in html and "behind the best" in html
    (root / strengths.FOLDER / "mnist-zero.json").unlink()


def test_the_page_shows_a_strip_a_stratum(built):
    root, task, text = built
    html = (root / "report/index.html").read_text()
    assert [title for title, _, _ in page.concept_pictures(task)["strips"]] == list(STRATA)
    assert all(f"Contact strip {name}" in html for name in STRATA) and "the empty prompt" in html
    assert "did not erase" in html and "mnist-zero" in text
    assert not (root / "results/plots/training/mnist-zero-uce.csv").exists()
    assert (root / "results/plots/training/mnist-zero-salun.csv").exists()
