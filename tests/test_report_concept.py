"""The report of a concept task: what is shown of a row that did not erase, a strip a prompt set, claims that apply."""

import shutil

import numpy as np
import pytest
from PIL import Image
from test_report_collect import (
    REPOSITORY,
    absent,
    make_rows,
    make_run,
    metric,
    settings,
    write_evaluation,
    write_losses,
)

from palinode.core import io
from palinode.params.report_settings import ReportSettings, ReportTask
from palinode.report import build, claims, collect, loss_curves, page, tables, task_view
from palinode.report.averages import Estimate
from palinode.report.reference_tables import read_mapping, read_tables
from palinode.report.sections import equal_footing, second_opinions

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

RETAINED = ("anchor", "near", "null prompt")
EACH = 20
ROWS = {  # name: (paper's id, UA on training prompts, accuracy of near prompts, integrity)
    "finetune": ("finetune", 0.05, 0.97, 0.9),
    "salun": ("salun", 0.95, 0.9, 0.6),
    "erasediff-rl": ("erasediff_rl", 0.9, 0.93, 0.7),
    "uce": (None, 0.85, 0.8, 0.5),
}
REFERENCES = {"base": (None, 0.01, 0.98, 1.0), "oracle": (None, 1.0, 0.98, 0.1), "other-seed": (None, 0.01, 0.98, 0.0)}


def write(root) -> ReportTask:
    """Cells of a task that forgets a class."""
    rng = np.random.default_rng(2)
    retained = {name: [{"text": "" if name == "null prompt" else name}] * EACH for name in RETAINED}
    sets = {"training": [], "forget": {"training prompts": [{"text": "zero"}] * EACH}, "retain": retained}
    io.write_json(root / "out/tasks/mnist-zero/0/prompts/prompt_sets.json", sets)
    for name, (_, ua, near, integrity) in (ROWS | REFERENCES).items():
        folder = root / "out/cells/mnist-zero/0" / name / "0"
        values = {
            "ua_training_prompts": ua,
            "accuracy_near": near,
            "target_probability": 1 - ua,
            "integrity_near_judge": integrity,
            "integrity_near_efficientnet_lite0": integrity - 0.1 * (name == "salun"),
            "ua_training_prompts_second": ua - 0.2 * (name == "uce"),
            "judges_agree_training_prompts": 0.8 if name == "uce" else 1.0,
        }
        entries = {key: metric(value, 0.01) for key, value in values.items()} | {"fid_kept_judge": metric(2.5, 0.1)}
        if name in ROWS:
            for way in ("forward", "backward"):
                entries[f"nfe_{way}"] = metric(0.0 if name == "uce" else 160.0, 0, "none", 1)
            write_losses(folder, () if name == "uce" else ("retain", "forget"), rng)
        drawn = {key: entry["value"] + 0.01 * rng.normal(size=50) for key, entry in entries.items() if entry["lo"]}
        write_evaluation(folder / "evaluation", entries, drawn)
        place = folder / "samples" if name in ROWS else root / "out/references/mnist-zero/0" / name
        pictures = rng.integers(0, 256, (EACH * (1 + len(RETAINED)), 16, 16, 1), np.uint8)
        io.write_array(place / "samples.npy", pictures)
    rows = make_rows({name: paper for name, (paper, *_) in ROWS.items()}, steps=10, batch=8, accumulate=1)
    return ReportTask(name="mnist-zero", kind="concept", subjects=[0], rows=rows)


def make_both(root) -> ReportSettings:
    """A run of an images task and the concept task."""
    run = make_run(root)
    return run.model_copy(update={"tasks": [*run.tasks, write(root)]})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("concept")
    run = make_both(root)
    return root, collect.collect(run, root)[1], build.build(run, root)


def test_a_report_without_images_tasks_shows_the_training_prompts(tmp_path):
    shutil.copytree(REPOSITORY / "reference", tmp_path / "reference")
    build.build(settings(tasks=[write(tmp_path)]), tmp_path)
    image = Image.open(tmp_path / "results/figure.png")
    assert image.width / image.height == pytest.approx(16 / (len(ROWS) + 2), rel=0.3), "a column a prompt, a line a row"
    assert len((tmp_path / "results/plots/pareto.csv").read_text().splitlines()) == 1


def test_what_a_row_keeps_is_not_shown_unless_it_erased(built):
    root, task, _ = built
    papers = {table["id"]: table for table in read_tables(root / "reference")}
    shown = tables.main_table(task, papers, read_mapping(root / "reference"))
    near = [entry.name for entry in shown.columns].index("accuracy_near")
    cells = {row.name: row.cells[near] for row in shown.rows}
    assert cells["finetune"].interval == "did not erase" and cells["finetune"].value == "–"
    assert cells["salun"].value == "90" and cells["base"].value == "98"


def test_claims_apply_only_to_rows_that_erased(built):
    root, task, _ = built
    results = {result.claim["id"]: result for result in claims.evaluate([task], root / "reference")}
    assert results["small-concept-finetune"].verdict == "holds"
    assert results["small-concept-integrity-1"].verdict == "holds"
    assert results["small-concept-integrity-4"].verdict == "untested"
    assert results["small-concept-erasediff-2"].verdict == "by construction"
    mapping = read_mapping(root / "reference")
    needy = {"id": "c", "check": "salun.ua > 0", "requires": "finetune.ua >= 0.8"}
    result = claims.assess(task, mapping, {"id": "small_concept", "rows": {}}, needy)
    assert result.verdict == "untested" and "here finetune.ua = 0.05" in result.reason


def test_second_opinions_are_shown_and_marked_where_they_differ(built):
    root, task, _ = built
    shown = second_opinions.view(task)
    judges = {cells[0]: cells[1:] for cells in shown["judges"].rows}
    assert shown["judges"].heads == ["training prompts"]
    assert judges["uce"] == ["85 / 65 ≠ (80)"] and judges["salun"] == ["95 / 95 (100)"]
    networks = {cells[0]: cells[1:] for cells in shown["networks"].rows}
    assert networks == {
        "finetune": ["did not erase"],
        "salun": ["0.60 / 0.50"],
        "erasediff-rl": ["0.70 / 0.70"],
        "uce": ["0.50 / 0.50"],
    }
    unsure = Estimate(0.5, replicates=np.full(9, np.nan))
    assert not second_opinions.differ(unsure, Estimate(0.9, replicates=np.full(9, 0.9)))
    html = (root / "report/index.html").read_text()
    assert "Second opinions" in html and "85 / 65 ≠ (80)" in html and "0.60 / 0.50" in html


def test_a_task_without_a_second_judge_has_no_second_opinions(tmp_path):
    run = settings(tasks=[write(tmp_path)])
    for path in tmp_path.glob("out/cells/**/metrics.json"):
        entries = io.read_json(path)
        for name in entries:
            if name.endswith("_second") or name.startswith(("judges_agree", "integrity_near_eff")):
                entries[name] = absent("there is none")
        io.write_json(path, entries)
    (task,) = collect.collect(run, tmp_path)
    assert second_opinions.view(task) is None


def test_rows_on_an_equal_footing_are_shown_where_they_were_compared(built):
    root, task, _ = built
    assert equal_footing.view(task) is None
    assert "At equal forgetting" not in (root / "report/index.html").read_text()
    ends = {name: {"value": 0.5, "lo": -0.25, "hi": 0.75} for name in ("strength", *equal_footing.CONCEPT_KEPT)}
    points = [
        {"row": row, "strength": strength, "ua_training_prompts": strength}
        | dict.fromkeys(equal_footing.CONCEPT_KEPT, strength)
        for row in ("salun", "uce")
        for strength in (0.5, 1.0)
    ]
    matched = [
        {"row": "salun", "strengths": [0.5, 1.0], "reached": 0.5} | ends,
        {"row": "uce", "strengths": [1.0], "outside": "UA 8%, not across the level"},
    ]
    part = {"question": "forgetting", "level": 0.9, "matched": matched}
    comparison = {"kind": "concept", "commit": "0" * 40, "seeds": [0, 1], "points": points, "comparisons": [part]}
    path = root / equal_footing.FOLDER / "mnist-zero.json"
    io.write_json(path, comparison)
    (shown,) = equal_footing.view(task)["parts"]
    assert shown["caption"] == "Where UA, training prompts is 90 % (code of commit 000000000000, seeds 0, 1)"
    assert shown["heads"][3:5] == ["Accuracy, near, % ↑", "Integrity, near (judge) ↑"]
    assert shown["rows"][0][2:5] == [
        "0.50 [−0.25, 0.75] (in 50% of the replicates)",
        "50 [−25, 75]",
        "0.50 [−0.25, 0.75]",
    ]
    assert shown["rows"][1][2:] == ["UA 8%, not across the level", *["–"] * 5]
    html = page.render([task], [], root / "reference", {}, [], [])
    assert html.count("At equal forgetting") == 1 and "mnist-zero-strengths-" in html
    assert "P(behind the best)" in html
    path.unlink()


def test_what_a_discriminator_tells_right_is_drawn_by_quarter(tmp_path):
    (task,) = collect.collect(settings(tasks=[write(tmp_path)]), tmp_path)
    assert loss_curves.draw_discriminators(task) is None
    lines: list[dict] = [{"step": step, "discriminator_1": 0.9} for step in range(9)]
    for line in lines[1::2]:
        line["discriminator_4"] = 0.5
    io.write_csv(tmp_path / "out/cells/mnist-zero/0/salun/0/training/training.csv", lines)
    log = loss_curves.read_logs(task, loss_curves.TOLD)["salun"]
    assert log["1"].steps == list(range(9)) and log["4"].steps == [1, 3, 5, 7]
    svg = loss_curves.draw_discriminators(task)
    assert "salun" in svg and "nearly all noise" in svg and "finetune" not in svg
    papers = {table["id"]: table for table in read_tables(REPOSITORY / "reference")}
    assert svg == task_view.view(task, papers, read_mapping(REPOSITORY / "reference"), None)["discriminators"]


def test_the_page_shows_a_strip_a_prompt_set(built):
    root, task, text = built
    html = (root / "report/index.html").read_text()
    sets = ["training prompts", *RETAINED]
    assert [title for title, _, _ in task_view.show_prompt_sets(task)] == sets
    assert all(f"Contact strip {name}" in html for name in sets) and "the null prompt" in html
    assert "did not erase" in html and "mnist-zero" in text
    assert not (root / "results/plots/training/mnist-zero-uce.csv").exists()
    assert (root / "results/plots/training/mnist-zero-salun.csv").exists()
