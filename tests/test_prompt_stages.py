"""The kind `prompts` at tiny size, with an untrained base: data, success, resume, stages, refusals."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from project import ROOT
from tiny import SCORES, run, untrained, write_plan

from palinode.core.io import read_arrays, read_csv, read_json, write_json
from palinode.memorization import ground_truth, prompt_sampler, realism
from palinode.params.report_settings import ReportSettings
from palinode.report import collect, task_view
from palinode.report.reference_tables import read_mapping, read_tables
from palinode.report.sections import prompt_results
from palinode.tasks.prompts import unlearn

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

__all__ = ["untrained"]  # a fixture
ROWS = {
    "naive": {"method": "naive_deletion"},
    "siss-0": {"method": "siss", "options": {"lam": 0.0, "norm": 1.0}},
    "retrack": {"method": "retrack"},
    "salun": {"method": "salun"},
    "esd-x": {"method": "esd", "trainable": "cross-attention"},
    "concept-ablation": {"method": "concept_ablation", "trainable": "cross-attention-kv"},
    "anchored": {"method": "anchored"},
    "uce": {"method": "uce"},
    "erasediff": {"method": "erasediff"},
}
EVERY = tuple(row for row in ROWS if row != "salun")
# Samples sent forward in four steps of two: once a loss where nothing else is said.
FORWARD = dict.fromkeys(EVERY, 8) | {"erasediff": 16, "retrack": 16, "concept-ablation": 16, "anchored": 32, "uce": 0}
REFERENCES = ("base", "mitigated")


def parameters(rows=("naive",), **changes) -> dict:
    return tiny.prompt_parameters(ROWS, rows, **changes)


@pytest.fixture
def work(tmp_path, monkeypatch, untrained):
    """A folder with an untrained base, its judge and made-up scores, every second picture of which is a copy."""
    folder = tiny.make_folder(tmp_path, monkeypatch)
    shutil.copytree(untrained, folder / "models")
    tiny.place_scores(folder / "models", {"threshold": 1.0})
    tiny.let_prompts_count(monkeypatch)
    return folder


def begin(made: dict | None = None) -> dict:
    """Plan, bind and prepare; what is known of the prompts."""
    write_plan(made or parameters())
    run("bind")
    run("prepare", "prompts", "few")
    return read_json(Path("out/tasks/few/prompts.json"))


def measure_reference(row: str, subject: str) -> Path:
    run("sample", "prompts", "few", subject, "reference", row)
    run("evaluate", "prompts", "few", subject, "reference", row)
    return Path("out/cells/few") / subject / row / "0/evaluation"


def measure(row: str, subject: str) -> Path:
    run("unlearn", "prompts", "few", subject, row, "0")
    run("evaluate", "prompts", "few", subject, row, "0")
    return Path("out/cells/few") / subject / row / "0"


def collect_task() -> collect.Task:
    (task,) = collect.collect(ReportSettings(**read_json(Path("out/plan/report.json"))["settings"]), Path())
    return task


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_task_runs_from_flagged_prompts_to_metrics(work):
    facts = begin(parameters(EVERY))
    assert [prompt["text"] for prompt in facts["prompts"]] == list(SCORES)[:2] and not facts["refused"]
    for prompt in facts["prompts"]:
        assert 0.25 <= prompt["memorized"]["value"] <= 0.9 and prompt["modified"] != prompt["text"]
    assert (work / "out/tasks/few/clusters.png").exists() and facts["threshold"] == 1
    base, mitigated = (read_json(measure_reference(row, "0") / "metrics.json") for row in REFERENCES)
    assert base["integrity_ordinary_judge"]["value"] == 1 and base["copies_others"]["n"] == 31
    assert base.keys() == mitigated.keys()
    for row in EVERY:
        cell = measure(row, "0")
        metrics = read_json(cell / "evaluation/metrics.json")
        assert base.keys() < metrics.keys() and metrics["success_modified"]["n"] == 1
        assert metrics["integrity_ordinary_judge"]["value"] < 1 and metrics["memorized_original"]["n"] == 4
        if row == "esd-x":  # follows trajectories of two steps, from a random one of which it goes on
            assert 24 <= metrics["nfe_forward"]["value"] <= 24 + 2 * 8
        else:
            assert metrics["nfe_forward"]["value"] == FORWARD[row], row
        looked = {"0", "2"} if row == "uce" else {"0", "2", "4"}
        lines = read_csv(cell / "evaluation/steps.csv")
        assert len(lines) == 2 * len(looked) and {line["step"] for line in lines} == looked
        history = read_csv(cell / "training/training.csv")
        assert [line["step"] for line in history] == ([str(i) for i in range(4)] if row != "uce" else ["0"])
        assert "nan" not in (cell / "training/training.csv").read_text()
        assert read_json(cell / "training/cost.json")["steps"] == (4 if row != "uce" else 0)
    assert not list((work / "scratch").iterdir())


@pytest.mark.slow
def test_subjects_and_what_was_drawn_reach_the_report(work):
    begin()
    for subject in ("0", "1", "sequential"):
        for row in REFERENCES:
            measure_reference(row, subject)
        measure("naive", subject)
    task = collect_task()
    naive = task.row("naive")
    assert naive.estimate("success_modified").samples == 2
    assert naive.estimate("sequential_integrity_ordinary_judge").value is not None
    papers = {table["id"]: table for table in read_tables(ROOT / "reference")}
    shown = task_view.view(task, papers, read_mapping(ROOT / "reference"), None)
    assert [title for title, *_ in prompt_results.list_strips(task)] == ["base", "mitigated", "naive"]
    assert shown["main"].columns[0].name == "success_modified"


@pytest.mark.slow
def test_one_model_forgets_all_prompts_in_sequence(work, monkeypatch):
    begin()
    cell = measure("naive", "sequential")
    metrics = read_json(cell / "evaluation/metrics.json")
    assert metrics["integrity_ordinary_judge"]["n"] == 4 and metrics["memorized_original"]["n"] == 8
    assert "success_original" not in metrics, "success is counted of a prompt that was forgotten alone"
    assert metrics["nfe_forward"]["value"] == 2 * FORWARD["naive"]
    history = read_csv(cell / "training/training.csv")
    assert [(line["prompt"], line["step"]) for line in history] == [(str(p), str(s)) for p in (0, 1) for s in range(4)]
    expected = contents(cell)
    shutil.rmtree(cell)
    forget = unlearn.Cell.forget
    started: list[str] = []

    def forget_or_die(self, target, *rest):
        started.append(target.prompt.text)
        if len(started) == 2:
            raise KeyboardInterrupt
        return forget(self, target, *rest)

    monkeypatch.setattr(unlearn.Cell, "forget", forget_or_die)
    with pytest.raises(KeyboardInterrupt):
        run("unlearn", "prompts", "few", "sequential", "naive", "0")
    measure("naive", "sequential")
    first, second = list(SCORES)[:2]
    assert started == [first, second, second], "the second goes on from the weights that forgot the first"
    assert contents(cell) == expected


@pytest.mark.slow
def test_a_killed_cell_goes_on_to_the_same_bytes(work, monkeypatch):
    begin()
    cell = measure("naive", "0")
    expected = contents(cell)
    shutil.rmtree(cell)
    look = unlearn.Watch.__call__
    looks: list[int] = []

    def look_or_die(watch, step):
        looks.append(step)
        if looks == [1, 2, 3]:
            raise KeyboardInterrupt
        look(watch, step)

    monkeypatch.setattr(unlearn.Watch, "__call__", look_or_die)
    with pytest.raises(KeyboardInterrupt):
        run("unlearn", "prompts", "few", "0", "naive", "0")
    measure("naive", "0")
    assert looks == [1, 2, 3, 3, 4], "it goes on after its second step"
    assert contents(cell) == expected


def test_prompts_that_do_not_count_are_listed_with_reasons(work, monkeypatch):
    monkeypatch.setattr(ground_truth, "COPY", 1e-9)
    facts = begin()
    assert [entry["text"] for entry in facts["refused"]] == list(SCORES)[:3] and not facts["prompts"]
    assert "draws no copy of a fixed picture" in facts["refused"][0]["reason"]
    reason = "none of the 3 flagged prompts that were tried counts"
    for subject in ("0", "1", "sequential"):
        for row in REFERENCES:
            assert reason in (measure_reference(row, subject) / "absent.txt").read_text()
        assert reason in (measure("naive", subject) / "evaluation/absent.txt").read_text()
    task = collect_task()
    assert prompt_results.view(task)["reason"] == reason and prompt_results.list_strips(task) == []


@pytest.mark.parametrize("threshold", [None, 0.8])
def test_without_a_threshold_nothing_is_unlearned(work, threshold):
    shutil.rmtree(work / "models/mini/detect")
    tiny.place_scores(work / "models", {"reason": "no prompt is known to be memorized"})
    facts = begin(parameters(choose={"count": 1, "among": 3, "threshold": threshold}))
    assert facts["reason"] == ("" if threshold else "no prompt is known to be memorized")
    assert facts["threshold"] == threshold and len(facts["prompts"]) == bool(threshold)
    if threshold is None:
        assert "no prompt is known to be memorized" in (measure("naive", "0") / "evaluation/absent.txt").read_text()


def test_a_killed_preparation_goes_on_to_the_same_bytes(work, monkeypatch):
    begin()
    folder = work / "out/tasks/few"
    made = contents(folder)
    shutil.rmtree(folder)
    draw = prompt_sampler.draw
    places: list[Path] = []

    def draw_or_die(*arguments):
        places.append(arguments[-2].folder)
        if len(places) == 5:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(prompt_sampler, "draw", draw_or_die)
    with pytest.raises(KeyboardInterrupt):
        run("prepare", "prompts", "few")
    assert all((place / "chunk-0.npy").exists() for place in places[:4])
    run("prepare", "prompts", "few")
    assert contents(folder) == made


def test_what_is_drawn_unprompted_is_kept_under_the_original(work, monkeypatch):
    def half_of_many(self, images, picture, reference):
        return np.zeros(len(images), bool) if len(images) < 8 else np.arange(len(images)) % 2 == 0

    monkeypatch.setattr(ground_truth.LabelledGroundTruth, "copies", half_of_many)
    split = {"images": 8, "agree": 0.01, "rule": "unprompted", "share_range": [0.01, 0.99]}
    prompts = begin(parameters(split=split))["prompts"]
    assert len(prompts) == 2
    for prompt in prompts:
        assert prompt["trained_on"] == prompt["text"] and prompt["modified"] == "" and prompt["edits"] == []


@pytest.mark.slow
@pytest.mark.parametrize("at_hand", [False, True])
def test_of_a_base_that_is_not_ours_only_the_list_is_known(work, monkeypatch, at_hand):
    monkeypatch.setattr(ground_truth.PromptListGroundTruth, "copies", tiny.every_second)
    if at_hand:
        monkeypatch.setattr(realism.ClipIQA, "__init__", lambda self: vars(self).update(_score=brightness, reason=""))
    write_plan(parameters())
    for verb in ("prepare", "evaluate"):
        path = Path(f"out/plan/{verb}-prompts/few.json")
        made = read_json(path)
        write_json(path, made | {"settings": made["settings"] | {"ground_truth": "list"}})
    run("bind")
    run("prepare", "prompts", "few")
    facts = read_json(work / "out/tasks/few/prompts.json")
    assert facts["controls"] == {"ordinary": ["a dog"], "kept": [], "others": list(SCORES)[:2]}
    assert read_arrays(work / "out/tasks/few/evaluation.npz")["least_quality"] == 0.35
    for folder in (measure_reference("base", "0"), measure("naive", "0") / "evaluation"):
        metrics = read_json(folder / "metrics.json")
        assert metrics["copies_others"]["n"] == 1, "the one that was not forgotten"
        for name in ("success_original", "clip_iqa_original"):
            assert (metrics[name]["value"] is not None) == at_hand
            assert at_hand or "CLIP-IQA is not at hand" in metrics[name]["reason"]
    metrics = read_json(measure("naive", "sequential") / "evaluation/metrics.json")
    assert metrics["copies_others"]["value"] is None


def brightness(images):
    """In the place of CLIP-IQA."""
    return images.mean((1, 2, 3))
