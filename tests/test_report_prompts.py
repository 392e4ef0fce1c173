"""The report of a task of memorized prompts: its table, refused prompts, pictures, and text from outside escaped."""

import numpy as np
import pytest
from test_report_collect import make_rows, make_run, metric, rate, write_evaluation, write_losses

from palinode.core import io
from palinode.params.report_settings import ReportTask
from palinode.report import build, claims, collect, pictures, tables
from palinode.report.reference_tables import read_mapping, read_tables

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

ROWS = {
    "naive": ("naive", 0.5),
    "siss-05": ("siss_0.5", 1.0),
    "siss-no-is": ("siss_no_is", 1.0),
    "erasediff-siss": ("erasediff_siss", 0.0),
}
REFERENCES = {"base": (None, 0.0), "mitigated": (None, 0.0)}
NASTY = 'the "<b>bold</b>" & <script>alert(1)</script>'
SUBJECTS = (0, 1, "sequential")


def write(root) -> ReportTask:
    """Cells of a task with two prompts, and of the model that forgot both."""
    rng = np.random.default_rng(3)
    counted = {
        "text": NASTY,
        "kind": "verbatim",
        "score": 1.5,
        "modified": f"{NASTY} x",
        "trained_on": NASTY,
        "picture": 0,
        "edits": [[NASTY, 0.5]],
        "memorized": rate(0.5, 128),
        "agrees": rate(0.5, 128),
    }
    refused = {"text": f"no {NASTY}", "kind": "ordinary", "score": 1.2, "reason": f"as {NASTY}"}
    folder = root / "out/tasks/emoji-memorized"
    io.write_json(folder / "prompts.json", {"prompts": [counted], "refused": [refused], "reason": ""})
    io.write_arrays(folder / "evaluation.npz", {"least_quality": np.array(0.42)})
    (folder / "clusters.png").write_bytes(pictures.encode_png(pictures.EMPTY))
    for subject in SUBJECTS:
        for name, (_, success) in (REFERENCES | ROWS).items():
            write_prompt_cell(root / f"out/cells/emoji-memorized/{subject}/{name}/0", success, name in ROWS, rng)
    rows = make_rows({name: paper for name, (paper, _) in ROWS.items()}, steps=35, batch=16, accumulate=1)
    return ReportTask(name="emoji-memorized", kind="prompts", subjects=list(SUBJECTS), rows=rows)


def write_prompt_cell(cell, success, unlearned, rng):
    entries = {"success_modified": rate(success, 1), "success_original": rate(success / 2, 1)}
    entries |= {"memorized_original": rate(0.25, 16), "integrity_ordinary_judge": metric(0.9, 0.01)}
    entries["integrity_ordinary_efficientnet_lite0"] = metric(0.9, 0.01)
    if unlearned:
        entries |= {f"nfe_{way}": metric(560.0, 0, "none", 1) for way in ("forward", "backward")}
        write_losses(cell, ("retain",), rng)
    drawn = {name: entry["value"] + 0.01 * rng.normal(size=50) for name, entry in entries.items()}
    write_evaluation(
        cell / "evaluation", entries, {name: values for name, values in drawn.items() if "nfe" not in name}
    )
    (cell / "evaluation/strips.png").write_bytes(pictures.encode_png(np.zeros((4, 4, 3), np.uint8)))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompts")
    run = make_run(root)
    run = run.model_copy(update={"tasks": [*run.tasks, write(root)]})
    build.build(run, root)
    return root, collect.collect(run, root)[1]


def test_what_comes_from_outside_is_escaped(built):
    html = (built[0] / "report/index.html").read_text()
    assert "<b>bold" not in html and "<script>alert" not in html
    assert html.count("the &#34;&lt;b&gt;bold&lt;/b&gt;&#34; &amp; &lt;script&gt;") == 6
    assert "refused: as the" in html and "50 % [41, 59] of 128" in html and "at least 42 %" in html
    assert all(f"Contact strip {name}" in html for name in ("base", "mitigated", *ROWS))
    assert "Clusters of emoji-memorized" in html


def test_success_is_over_prompts(built):
    estimate = built[1].row("siss-05").estimate("success_modified")
    assert (estimate.value, estimate.n, estimate.samples, estimate.interval) == (1.0, 2, 2, "subjects")


def test_sequential_unlearning_has_columns_of_its_own(built):
    root, task = built
    papers = {table["id"]: table for table in read_tables(root / "reference")}
    shown = tables.main_table(task, papers, read_mapping(root / "reference"))
    names = [entry.name for entry in shown.columns]
    labels = {entry.name: entry.label for entry in shown.columns}
    assert names[-2:] == ["sequential_memorized_original", "sequential_integrity_ordinary_judge"]
    assert labels["sequential_memorized_original"] == "Sequential: Memorized, original prompt"
    lines = io.read_csv(root / "results/metrics.csv")
    subjects = {line["subject"] for line in lines if line["metric"] == "sequential_memorized_original"}
    assert subjects == {"sequential", "all"}
    assert task.row("naive").estimate("memorized_original").samples == 32


def test_the_papers_rates_stand_beside_ours(built):
    root, task = built
    papers = {table["id"]: table for table in read_tables(root / "reference")}
    shown = tables.main_table(task, papers, read_mapping(root / "reference"))
    cells = {row.name: row.cells[1] for row in shown.rows}
    assert (cells["siss-05"].value, cells["siss-05"].paper, cells["erasediff-siss"].paper) == ("50", "71", "24")


def test_claims_are_ours_or_wait_for_what_the_paper_measured(built):
    root, task = built
    results = {result.claim["id"]: result for result in claims.evaluate([task], root / "reference")}
    assert results["small-prompts-3"].verdict == "holds"
    assert results["siss-sd-3"].verdict == "untested"
    assert "2 samples, at least 20 needed" in results["siss-sd-3"].reason
    assert "no metric of ours stands for success_partial" in results["siss-sd-3"].reason
