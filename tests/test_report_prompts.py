"""The report of a task of memorised prompts: its table, refused prompts, pictures, and text from outside escaped."""

import numpy as np
import pytest
from test_report_build import make_run, metric

from palinode import io
from palinode.contact import write_png
from palinode.report import build, claims, collect, tables

TRAINING = {"lr": 1e-4, "steps": 35, "batch": 16, "accumulate": 1}
ROWS = {"naive": ("naive", 0.5), "siss-05": ("siss_0.5", 1.0), "siss-no-is": ("siss_no_is", 1.0),
        "erasediff-siss": ("erasediff_siss", 0.0)}  # fmt: skip
NASTY = 'the "<b>bold</b>" & <script>alert(1)</script>'


def write(root, count):
    """Cells of a task with `count` prompts; returns the settings of its rows."""
    rng, rate = np.random.default_rng(3), {"value": 0.5, "lo": 0.4, "hi": 0.6, "n": 128}
    counted = {"text": NASTY, "kind": "verbatim", "score": 1.5, "modified": f"{NASTY} x", "told": NASTY, "picture": 0,
               "edits": [[NASTY, 0.5]], "memorised": rate, "agrees": rate}  # fmt: skip
    refused = {"text": f"no {NASTY}", "kind": "ordinary", "score": 1.2, "reason": f"as {NASTY}"}
    folder = root / "out/data/emoji-memorized"
    facts = {"prompts": [counted], "refused": [refused], "reason": "", "least": 0.42}
    io.write_json(folder / "prompts.json", facts)
    write_png(folder / "clusters.png", np.zeros((4, 4, 3), np.uint8))
    for name, (_, success) in (dict.fromkeys(("base", "mitigated"), (None, 0.0)) | ROWS).items():
        cell = root / "out/cells/emoji-memorized" / name / "0"
        values = {"success_modified": success, "success_original": success / 2}
        entries = {key: metric(value, 0.1, "up", "wilson", count) for key, value in values.items()}
        entries |= {"integrity_ordinary_judge": metric(0.9, 0.01)}
        if name in ROWS:
            for way in ("forward", "backward"):
                entries[f"{way}_passes"] = metric(560.0, 0, "down", "none")
            io.write_text(cell / "training.csv", "step,loss_x\n0,3\n34,2\n")
        io.write_json(cell / "evaluation/metrics.json", entries)
        drawn = {key: entry["value"] + 0.01 * rng.normal(size=50) for key, entry in entries.items() if entry["lo"]}
        io.write_arrays(cell / "evaluation/replicates.npz", drawn)
        write_png(cell / "evaluation/strips.png", np.zeros((4, 4, 3), np.uint8))
    return {name: {"method": name, "paper": paper, "options": {}, "training": TRAINING}
            for name, (paper, _) in ROWS.items()}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompts")
    settings = make_run(root)
    settings["families"]["emoji-memorized"] = "prompts"
    settings["tasks"]["emoji-memorized"] = write(root, 2)
    build.build(settings, root)
    return root, collect.collect(settings, root)[1]


def test_what_comes_from_outside_is_escaped(built):
    html = (built[0] / "report/index.html").read_text()
    assert "<b>bold" not in html and "<script>alert" not in html
    assert html.count("the &#34;&lt;b&gt;bold&lt;/b&gt;&#34; &amp; &lt;script&gt;") == 6
    assert "refused: as the" in html and "50 % [40, 60] of 128" in html and "at least 42 %" in html
    assert all(f"Contact strip {name}" in html for name in ("base", "mitigated", *ROWS))
    assert "Clusters of emoji-memorized" in html


def test_the_papers_rates_stand_beside_ours(built):
    root, task = built
    papers = {table["id"]: table for table in claims.read_tables(root / "reference")}
    shown = tables.main_table(task, papers, claims.read_mapping(root / "reference"))
    cells = {name: row[1] for name, _, row in shown.rows}
    assert (cells["siss-05"].value, cells["siss-05"].paper, cells["erasediff-siss"].paper) == ("50", "71", "24")


def test_claims_are_ours_or_wait_for_what_the_paper_measured(built):
    root, task = built
    results = {result.claim["id"]: result for result in claims.evaluate([task], root / "reference")}
    assert results["small-prompts-3"].verdict == "holds"
    assert results["siss-sd-3"].verdict == "untested"
    assert "2 samples, at least 20 needed" in results["siss-sd-3"].reason
    assert "no metric of ours stands for success_partial" in results["siss-sd-3"].reason
