"""The stages of the kind `concept` at tiny size, on captions and on classes, with untrained networks."""

import shutil
from pathlib import Path

import pytest
import tiny
from project import ROOT, untrained_base
from tiny import run, run_cell, untrained, write_plan

from palinode import params
from palinode.core.errors import UserError
from palinode.core.io import read_array, read_json
from palinode.models import denoiser, loading, unconditional
from palinode.pipeline import planning

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

TASKS = {
    "no-cat": {"base": "mini", "target": "cat", "anchor": "dog"},
    "no-noto": {"base": "mini", "target": "noto", "anchor": "fluent"},
    "no-zero": {"base": "two", "target": 0, "anchor": 1},
}
ROWS = {
    "salun": {"method": "salun"},
    "sa": {"method": "selective_amnesia"},
    "doco": {"method": "doco", "options": {"warmup": 1, "widths": [8, 8]}},
    "esd-x": {"method": "esd", "trainable": "cross-attention"},
    "uce": {"method": "uce"},
}
REFERENCES = ("base", "oracle", "other-seed")
__all__ = ["untrained"]  # a fixture


def parameters(tasks: list[str], rows: list[str]) -> dict:
    return tiny.concept_parameters({name: TASKS[name] for name in tasks}, {name: ROWS[name] for name in rows})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder without models."""
    return tiny.make_folder(tmp_path, monkeypatch)


@pytest.fixture
def work(folder, untrained):
    """A working folder with untrained models in it."""
    shutil.copytree(untrained, folder / "models")
    return folder


def prepare(tasks: list[str], rows: list[str], made: dict | None = None) -> None:
    write_plan(made or parameters(tasks, rows))
    run("bind")
    for task in tasks:
        run("prepare", "concept", task, "0")
        run("importance", "concept", task, "0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "task,rows",
    [("no-cat", ["salun", "esd-x", "uce"]), ("no-noto", ["uce"]), ("no-zero", ["sa", "doco"])],
)
def test_a_task_runs_from_prompts_to_metrics(work, task, rows):
    prepare([task], rows)
    for reference in REFERENCES:
        run("sample", "concept", task, "0", "reference", reference)
    for reference in REFERENCES:
        run("evaluate", "concept", task, "0", "reference", reference)
    cells = work / "out/cells" / task / "0"
    base = read_json(cells / "base/0/evaluation/metrics.json")
    assert base["drift_training_prompts_judge"]["value"] == 0
    other = read_json(cells / "other-seed/0/evaluation/metrics.json")
    assert other.keys() == base.keys() and other["drift_training_prompts_judge"]["value"] > 0
    assert "no model was trained without" in (cells / "oracle/0/evaluation/absent.txt").read_text()
    sets = read_json(work / "out/tasks" / task / "0/prompts/prompt_sets.json")
    asked = [caption for part in ("forget", "retain") for captions in sets[part].values() for caption in captions]
    for row in rows:
        cell = run_cell("concept", task, "0", row)
        assert len(read_array(cell / "samples/samples.npy")) == len(asked)
        metrics = read_json(cell / "evaluation/metrics.json")
        wanted = {"ua_training_prompts", "accuracy_anchor", "integrity_anchor_judge", "fid_kept_judge", "nfe_forward"}
        assert wanted <= metrics.keys(), wanted - metrics.keys()
        assert (metrics["nfe_forward"]["value"] == 0) == (row == "uce")
        assert (cell / "training/training.csv").read_text().startswith("step")
        assert (cell / "evaluation/contact.png").exists()
    assert not list((work / "scratch").iterdir())


@pytest.mark.parametrize(
    "task,changes,words",
    [
        ("no-zero", {"anchor": 0}, "target and anchor are both 0: nothing would be forgotten"),
        ("no-zero", {"target": 12}, "concept_tasks.no-zero: target: 12 is unknown; there are 0, 1"),
        ("no-cat", {"target": "unicorn"}, "concept_tasks.no-cat: target: 'unicorn' is unknown"),
        ("no-cat", {"anchor": "noto"}, "target 'cat' and anchor 'noto' are not of one kind"),
        ("no-cat", {"target": ""}, "concept_tasks.no-cat: target: '' is unknown"),
    ],
)
def test_what_cannot_work_is_refused_by_the_plan(folder, task, changes, words):
    made = parameters([task], ["sa"])
    made["concept_tasks"][task] |= changes
    with pytest.raises((UserError, ValueError), match=words):
        write_plan(made)
    assert not (folder / "out/plan").exists()


def test_rows_that_edit_how_prompts_are_read_are_absent_on_classes(work):
    write_plan(parameters(["no-zero", "no-cat"], ["uce", "esd-x"]))
    run("bind")
    run("prepare", "concept", "no-zero", "0")
    run("importance", "concept", "no-zero", "0")
    for reference in REFERENCES:
        run("sample", "concept", "no-zero", "0", "reference", reference)
    for row in ("uce", "esd-x"):
        cell = run_cell("concept", "no-zero", "0", row)
        reason = f"{row} needs prompts, and the text states that the model reads them as, which no-zero does not offer"
        for part in ("model", "training", "samples", "evaluation"):
            assert (cell / part / "absent.txt").read_text().strip() == reason, part
    with pytest.raises(UserError, match="matches no parameter"):
        denoiser.train_only(loading.load(work / "models/two/model"), "cross-attention")


def test_the_multiplier_changes_learning_rates_of_concept_rows_alone(folder):
    made = parameters(["no-zero"], ["sa"])
    planning.write_all(params.Params.model_validate(made), ROOT, folder / "once")
    made["concept"]["lr_multiplier"] = 0.5
    planning.write_all(params.Params.model_validate(made), ROOT, folder / "half")
    files = {path.relative_to(folder / "once") for path in (folder / "once").glob("**/*.json")}
    changed = {file for file in files if read_json(folder / "once" / file) != read_json(folder / "half" / file)}
    cell = Path("unlearn-concept/no-zero/sa.json")
    assert changed == {cell, Path("report.json")}
    once, half = (read_json(folder / way / cell)["settings"]["training"] for way in ("once", "half"))
    assert half == once | {"lr": once["lr"] / 2}


def test_a_model_of_another_kind_is_refused(work):
    unconditional.save(untrained_base(), work / "models/two/model")
    with pytest.raises(UserError, match="is a model of the kind 'unconditional', expected is 'class'"):
        prepare(["no-zero"], ["sa"])
    assert not (work / "out/tasks/no-zero/0").exists()
