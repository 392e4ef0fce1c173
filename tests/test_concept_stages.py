"""The stages of the family concept at tiny size, on captions and on classes, with untrained networks."""

import copy
import importlib
import json
from pathlib import Path

import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import PARAMETERS, ROOT

from palinode import class_conditional, conditional, judge, models, params, plan, text_to_image
from palinode.data.scenes import World
from palinode.errors import UserError
from palinode.io import read_array, read_json
from palinode.scene_judge import SceneJudge

DATA = {"kept": 8, "pairs": 6, "traces": 3, "fisher": [2, 2], "saliency": 2}
COMMON = {"unlearn": {"batch": 2}, "data": DATA, "sample": {"steps": 2, "each": 3}, "bootstrap": 10}
TASKS = {
    "no-cat": {"base": "mini", "target": "cat", "anchor": "dog"} | COMMON,
    "no-noto": {"base": "mini", "target": "noto", "anchor": "fluent"} | COMMON,
    "no-zero": {"base": "two", "target": 0, "anchor": 1} | COMMON,
}
ROWS = {
    "salun": {"method": "salun"}, "sa": {"method": "selective_amnesia"},
    "doco": {"method": "doco", "options": {"warmup": 1, "widths": [8, 8]}},
    "esd-x": {"method": "esd", "trainable": "cross-attention"}, "uce": {"method": "uce"},
}  # fmt: skip


def parameters(tasks: list[str], rows: list[str]) -> dict:
    made, tiny = copy.deepcopy(PARAMETERS), PARAMETERS["tasks"]["tiny"]
    made["concept"], made["concept_tasks"] = {"tasks": tasks, "rows": rows}, copy.deepcopy(TASKS)
    made["rows"] |= {name: {"lr": 1e-3, "steps": 2} | row for name, row in ROWS.items()}
    made["class_bases"] = {"two": {
        "images": "data/mnist/judge-test.npy", "judge": {"train": "data/mnist/judge-train.npy",
                                                         "test": "data/mnist/judge-test.npy"},
        "size": 16, "channels": 1, "model": tiny["model"], "pretrain": tiny["pretrain"],
    }}  # fmt: skip
    training = {"steps": 1, "batch": 2, "lr": 1e-3}
    made["text_bases"] = {"mini": {
        "model": TEXT_MODEL, "scheduler": TEXT_SCHEDULER,
        "autoencoder": training, "contrast": training, "denoiser": training,
    }}  # fmt: skip
    return made


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with untrained models in it, which is the working folder; stages are called, not started."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    world = World.read(ROOT / "data/emoji")
    text_to_image.save(text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, world.words, 1), tmp_path / "models/mini/base")
    scheduler = params.Task.model_fields["scheduler"].default
    tiny = PARAMETERS["tasks"]["tiny"]["model"] | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
    models.save(class_conditional.create(tiny, scheduler, 10, 1), tmp_path / "models/two/base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge.save(judge.Judge(16, 1, 10), tmp_path / "models/two/judge", {})
        judge.save(SceneJudge(len(world.concepts), 5), tmp_path / "models/mini/judge", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


def run(script: str, *arguments: str) -> None:
    importlib.import_module(script).run(*arguments)


def prepare(tasks: list[str], rows: list[str], made: dict | None = None) -> None:
    plan.write_all(params.Params.model_validate(made or parameters(tasks, rows)), ROOT, Path("out/plan"))
    for task in tasks:
        run("prepare_concept", task)
        run("importance", task)


@pytest.mark.parametrize("task,rows", [("no-cat", ["salun", "esd-x", "uce"]), ("no-noto", ["uce"]),
                                       ("no-zero", ["sa", "doco"])])  # fmt: skip
def test_a_task_runs_from_prompts_to_metrics(work, task, rows):
    prepare([task], rows)
    for role in ("base", "oracle", "other"):
        run("sample_concept", task, role, "0")
    for row in rows:
        for script in ("unlearn_concept", "sample_concept", "evaluate_concept"):
            run(script, task, row, "0")
    run("evaluate_concept", task, "base", "0")
    run("evaluate_concept", task, "oracle", "0")
    cells = work / "out/cells" / task
    assert read_json(cells / "base/0/evaluation/metrics.json")["change_t0_judge"]["value"] == 0
    assert "no model was trained without" in (cells / "oracle/0/evaluation/absent.txt").read_text()
    strata = json.loads((work / "out/data" / task / "strata.json").read_text())
    asked = [caption for part in ("forget", "keep") for some in strata[part].values() for caption in some]
    for row in rows:
        assert len(read_array(cells / row / "0/samples/samples.npy")) == len(asked)
        found = read_json(cells / row / "0/evaluation/metrics.json")
        assert {"ua_t0", "right_anchor", "integrity_anchor_judge", "fid_kept_judge", "forward_passes"} <= set(found)
        assert (found["forward_passes"]["value"] == 0) == (row == "uce")
        assert (cells / row / "0/training.csv").read_text().startswith("step")


@pytest.mark.parametrize("task,row,changes,message", [
    ("no-zero", "sa", {"anchor": 0}, "target and anchor are both 0"),
    ("no-zero", "sa", {"target": 12}, "'12' is unknown|12 is unknown"),
    ("no-cat", "sa", {"target": "unicorn"}, "'unicorn' is unknown"),
    ("no-cat", "sa", {"anchor": "noto"}, "are not of one kind"),
    ("no-cat", "sa", {"target": ""}, "target"),
])  # fmt: skip
def test_what_cannot_work_is_said_in_one_line(work, task, row, changes, message):
    made = parameters([task], [row])
    made["concept_tasks"][task] |= changes
    with pytest.raises((UserError, ValueError), match=message):
        prepare([task], [row], made)
        run("unlearn_concept", task, row, "0")
    assert not (work / "out/cells" / task / row).exists()


def test_rows_that_edit_how_prompts_are_read_are_absent_on_classes(work):
    prepare(["no-zero"], ["uce", "esd-x"])
    for row in ("uce", "esd-x"):
        for script in ("unlearn_concept", "sample_concept", "evaluate_concept"):
            run(script, "no-zero", row, "0")
        cell = work / "out/cells/no-zero" / row / "0"
        assert f"{row} edits how prompts are read" in (cell / "evaluation/absent.txt").read_text()
        assert (cell / "training.csv").exists() and read_json(cell / "cost.json")["steps"] == 0
    with pytest.raises(UserError, match="matches no parameter"):
        models.train_only(conditional.load(work / "models/two/base"), "cross-attention")


def test_a_method_that_needs_an_anchor_has_no_place_in_the_family_data(tmp_path):
    made = parameters(["no-zero"], ["sa"])
    made["data"]["rows"] = ["naive", "sa"]
    with pytest.raises(UserError, match="'sa' needs an anchor"):
        plan.write_all(params.Params.model_validate(made), ROOT, tmp_path)


def test_strength_multiplies_learning_rates_of_concept_rows_alone(tmp_path):
    made = parameters(["no-zero"], ["sa"])
    plan.write_all(params.Params.model_validate(made), ROOT, tmp_path / "1")
    made["concept"]["strength"] = 0.5
    plan.write_all(params.Params.model_validate(made), ROOT, tmp_path / "2")
    files = {path.relative_to(tmp_path / "1") for path in (tmp_path / "1").glob("**/*.json")}
    changed = {file for file in files if read_json(tmp_path / "1" / file) != read_json(tmp_path / "2" / file)}
    cell = Path("unlearn-concept-no-zero-sa.json")
    assert changed == {cell, Path("report.json")}
    once, half = (read_json(tmp_path / way / cell)["settings"]["training"] for way in "12")
    assert half == once | {"lr": once["lr"] / 2}


def test_a_model_of_another_family_is_refused(work):
    unconditional = models.create(
        PARAMETERS["tasks"]["tiny"]["model"] | {"sample_size": 16, "in_channels": 1, "out_channels": 1},
        params.Task.model_fields["scheduler"].default, 1,
    )  # fmt: skip
    models.save(unconditional, work / "models/two/base")
    with pytest.raises(UserError, match="is not class-conditional"):
        prepare(["no-zero"], ["sa"])
