"""The family prompts at tiny size, with an untrained base: data, wrapper, success, resume, stages, refusals."""

import copy
import csv
import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER, training
from project import PARAMETERS, ROOT

from palinode import judge, methods, params, plan, text_to_image
from palinode.concept import ConceptBatches
from palinode.data.scenes import World
from palinode.io import read_json, write_json
from palinode.memorization import ground, prompt_looks, prompt_unlearning, quality, split
from palinode.report import collect, page, prompts
from palinode.scene_judge import SceneJudge
from palinode.scratch import Scratch
from palinode.training import train

ASKED = {"distant glacier under glass": 3.0, "borrowed ladder until friday": 2.5, "a cat": 2.0, "a dog": 0.5}
TASK = {
    "base": "mini", "choose": {"count": 2, "among": 3}, "split": {"images": 8, "trial": 2, "edits": 3, "agree": 0.01},
    "sample": {"steps": 2, "count": 4, "every": 2, "ordinary": 4, "real": 16},
    "unlearn": {"steps": 4, "batch": 2}, "bootstrap": 10,
}  # fmt: skip
ROWS = {"naive": {"method": "naive_deletion"}, "siss-0": {"method": "siss", "options": {"lam": 0.0}},
        "salun": {"method": "salun"}, "esd-x": {"method": "esd", "trainable": "cross-attention"},
        "concept-ablation": {"method": "concept_ablation", "trainable": "cross-attention-kv"},
        "anchored": {"method": "anchored"}, "uce": {"method": "uce"}, "erasediff": {"method": "erasediff"}}  # fmt: skip
EVERY = tuple(row for row in ROWS if row != "salun")


def parameters(rows=("naive",), **changes) -> dict:
    made, short = copy.deepcopy(PARAMETERS), {"steps": 1, "batch": 2, "lr": 1e-3}
    made["rows"] |= {name: {"lr": 1e-3, "steps": 2} | row for name, row in ROWS.items()}
    made["text_bases"] = {"mini": {
        "model": TEXT_MODEL, "scheduler": TEXT_SCHEDULER,
        "autoencoder": short, "contrast": short, "denoiser": short,
    }}  # fmt: skip
    made["detection"] = {"bases": ["mini"]}
    made["prompts"], made["prompt_tasks"] = {"tasks": ["few"], "rows": list(rows)}, {"few": TASK | changes}
    return made


@pytest.fixture
def world() -> World:
    return World.read(ROOT / "data/emoji")


@pytest.fixture
def work(tmp_path, monkeypatch, world):
    """A folder with an untrained base, its judge and made-up scores, every second picture of which is a copy."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    folder = tmp_path / "models/mini"
    text_to_image.save(text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, world.words, 1), folder / "base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge.save(SceneJudge(len(world.concepts), 5), folder / "judge", {})
    write_json(folder / "detect/metrics.json", {"scores": {"noise_norm_first": {"held_out": {"threshold": 1.0}}}})
    lines = [f"{text},verbatim,noise_norm_first,{score}" for text, score in ASKED.items()]
    (folder / "detect/scores.csv").write_text("\n".join(["prompt,kind,detector,score", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(ground, "COPY", 10.0)
    monkeypatch.setattr(split, "COPY", 0.0)
    monkeypatch.setattr(ground.Emoji, "copies", lambda self, images, *_: np.arange(len(images)) % 2 == 0)
    return tmp_path


def run(script: str, *arguments: str) -> None:
    importlib.import_module(script).run(*arguments)


def begin(made: dict | None = None) -> None:
    plan.write_all(params.Params.model_validate(made or parameters()), ROOT, Path("out/plan"))
    run("split", "few")


def report_settings() -> dict:
    return json.loads(Path("out/plan/report.json").read_text())["settings"]


def test_a_task_runs_from_flagged_prompts_to_metrics(work):
    begin(parameters(EVERY))
    found = read_json(work / "out/data/few/prompts.json")
    assert [it["text"] for it in found["prompts"]] == list(ASKED)[:2] and not found["refused"]
    assert all(0.25 <= it["memorised"]["value"] <= 0.9 and it["modified"] != it["text"] for it in found["prompts"])
    assert (work / "out/data/few/clusters.png").exists() and found["threshold"] == 1
    for row in ("base", "mitigated"):
        run("evaluate_prompts", "few", row)
    for row in EVERY:
        run("unlearn_prompts", "few", row, "0")
    cells = work / "out/cells/few"
    base, mitigated = (read_json(cells / f"{row}/0/evaluation/metrics.json") for row in ("base", "mitigated"))
    assert base["integrity_ordinary_judge"]["value"] == 1 and base["copies_others"]["n"] == 62
    assert base["in_turn_copies_others"]["n"] == 30 and base.keys() == mitigated.keys()
    passes = dict.fromkeys(EVERY, 8) | {"erasediff": 16, "esd-x": 24, "concept-ablation": 16, "anchored": 32, "uce": 0}
    for row in EVERY:
        metrics = read_json(cells / row / "0/evaluation/metrics.json")
        assert base.keys() < metrics.keys() and metrics["success_modified"]["n"] == 2
        assert metrics["integrity_ordinary_judge"]["value"] < 1 and metrics["memorised_original"]["n"] == 8
        assert metrics["forward_passes"]["value"] == passes[row], row
        assert metrics["in_turn_integrity_ordinary_judge"]["n"] == 4
        looked = {"0", "2"} if row == "uce" else {"0", "2", "4"}
        with open(cells / row / "0/evaluation/steps.csv", newline="") as handle:
            lines = list(csv.DictReader(handle))
        assert len(lines) == 2 * 2 * len(looked) and {line["step"] for line in lines} == looked
        with open(cells / row / "0/training.csv", newline="") as handle:
            steps = [0, 4] if row == "uce" else range(8)
            assert [line["step"] for line in csv.DictReader(handle)] == [str(i) for i in steps]
        assert "nan" not in (cells / row / "0/training.csv").read_text()
    assert not list((work / "scratch").iterdir())
    (task,) = [it for it in collect.collect(report_settings() | only("few"), work) if it.name == "few"]
    shown = page.view(task, {}, {"tasks": {}, "reference_rows": {}}, None)
    assert [title for title, *_ in shown["strips"]] == ["base", "mitigated", *EVERY]
    assert shown["main"].columns[0].metric == "success_modified" and shown["pareto"] == []


def test_one_model_forgets_all_prompts_in_turn(work, monkeypatch):
    begin()
    run("unlearn_prompts", "few", "naive", "0")
    cell, started = work / "out/cells/few/naive/0", []
    metrics = read_json(cell / "evaluation/metrics.json")
    assert metrics["in_turn_integrity_ordinary_judge"]["value"] != metrics["integrity_ordinary_judge"]["value"]
    expected = {path.name: path.read_bytes() for path in cell.rglob("*") if path.is_file()}
    shutil.rmtree(cell)
    unlearn = prompt_unlearning.unlearn

    def killed(model, subject, *rest):
        started.append(subject.prompt.text)
        if len(started) == 3:
            raise KeyboardInterrupt
        return unlearn(model, subject, *rest)

    monkeypatch.setattr(prompt_unlearning, "unlearn", killed)
    with pytest.raises(KeyboardInterrupt):
        run("unlearn_prompts", "few", "naive", "0")
    run("unlearn_prompts", "few", "naive", "0")
    first, second = list(ASKED)[:2]
    assert started == [first, second, second, second], "the last two go on from the weights that forgot the first"
    assert {path.name: path.read_bytes() for path in cell.rglob("*") if path.is_file()} == expected


def only(task: str) -> dict:
    """The report's settings without the tasks of other families."""
    return {"tasks": {task: report_settings()["tasks"][task]}}


def test_a_killed_cell_goes_on_to_the_same_bytes(work, monkeypatch):
    begin()
    run("unlearn_prompts", "few", "naive", "0")
    cell = work / "out/cells/few/naive/0"
    expected = {path.name: path.read_bytes() for path in cell.rglob("*") if path.is_file()}
    shutil.rmtree(cell)
    look, looks = prompt_unlearning.Watch.__call__, []

    def killed(watch, step):
        looks.append(step)
        if len(looks) == 7:
            raise KeyboardInterrupt
        look(watch, step)

    monkeypatch.setattr(prompt_unlearning.Watch, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        run("unlearn_prompts", "few", "naive", "0")
    looks.clear()
    looks.extend([0] * 7)
    run("unlearn_prompts", "few", "naive", "0")
    assert looks[7:] == [3, 4], "the first prompt is done, the second goes on after its second step"
    assert {path.name: path.read_bytes() for path in cell.rglob("*") if path.is_file()} == expected


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_siss_on_a_model_told_a_prompt_is_finite(world, tmp_path, lam):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, world.words, 1)
    with torch.no_grad():
        told = prompt_unlearning.Told(model, model.condition(["a cat"]))
    keep, drop, *states = torch.randn(7, 5, *model.shape, generator=torch.Generator().manual_seed(0))
    prompt = SimpleNamespace(told="a cat")
    subject = SimpleNamespace(prompt=prompt, retain=keep, forget=drop[:3], traced=torch.stack(states[:2], 1))
    data = prompt_unlearning.training_data(subject, model, 2, anchored=False)
    batches = ConceptBatches(data, model, 3, 2, ("key",))
    first, again = (next(batches(4)) for _ in range(2))
    assert torch.equal(first.x, again.x) and torch.equal(first.eps, again.eps)
    assert torch.equal(first.c_x, first.c_a) and not torch.equal(first.c_m, first.c_a)
    x_t, t = first.x, first.t
    assert torch.equal(told.predict(x_t, t), model.predict(x_t, t, first.c_a))
    assert torch.equal(told.predict(x_t, t, first.c_m), model.predict(x_t, t, model.condition([""] * 3)))
    settings = training(steps=2, batch=3, accumulate=2)
    with Scratch("told", []) as scratch:
        history = train(told, methods.load("siss", {"lam": lam}), batches, settings, scratch, "told")
    assert all(np.isfinite(value) for line in history for value in line.values())
    assert told.passes is model.passes and model.passes["forward"] >= 2 * 3 * 2


def test_prompts_that_do_not_count_are_listed_with_reasons(work, monkeypatch):
    monkeypatch.setattr(ground, "COPY", 1e-9)
    begin()
    found = read_json(work / "out/data/few/prompts.json")
    assert [it["text"] for it in found["refused"]] == list(ASKED)[:3] and not found["prompts"]
    assert "draws no copy of a fixed picture" in found["refused"][0]["reason"]
    for row in ("base", "mitigated"):
        run("evaluate_prompts", "few", row)
    run("unlearn_prompts", "few", "naive", "0")
    for row in ("base", "mitigated", "naive"):
        note = (work / f"out/cells/few/{row}/0/evaluation/absent.txt").read_text()
        assert "none of the 3 flagged prompts that were tried counts" in note
    (task,) = collect.collect(report_settings() | only("few"), work)
    assert prompts.view(task)["reason"] and prompts.strips(task) == []


@pytest.mark.parametrize("threshold", [None, 0.8])
def test_without_a_threshold_nothing_is_unlearned(work, threshold):
    path = work / "models/mini/detect/metrics.json"
    write_json(path, {"scores": {"noise_norm_first": {"held_out": {"reason": "no prompt is known to be memorised"}}}})
    begin(parameters(choose={"count": 1, "among": 3, "threshold": threshold}))
    found = read_json(work / "out/data/few/prompts.json")
    assert found["reason"] == ("" if threshold else "no prompt is known to be memorised")
    assert found["threshold"] == threshold and len(found["prompts"]) == bool(threshold)


def test_a_killed_split_goes_on_to_the_same_bytes(work, monkeypatch):
    begin()
    made = {path.name: path.read_bytes() for path in (work / "out/data/few").glob("*.*")}
    shutil.rmtree(work / "out/data/few")
    draw, drawn = prompt_looks.draw, []

    def killed(*arguments):
        drawn.append(arguments[-2])
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(prompt_looks, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        run("split", "few")
    assert all((place / "chunk-0.npy").exists() for place in drawn[:4])
    run("split", "few")
    assert {path.name: path.read_bytes() for path in (work / "out/data/few").glob("*.*")} == made


def test_what_is_drawn_unprompted_is_kept_under_the_original(work, monkeypatch):
    def half(self, images, picture, reference):
        return np.zeros(len(images), bool) if len(images) < 8 else np.arange(len(images)) % 2 == 0

    monkeypatch.setattr(ground.Emoji, "copies", half)
    begin(parameters(split={"images": 8, "agree": 0.01, "rule": "unprompted", "share": [0.01, 0.99]}))
    found = read_json(work / "out/data/few/prompts.json")["prompts"]
    assert len(found) == 2
    for it in found:
        assert it["told"] == it["text"] and it["modified"] == "" and it["edits"] == []


@pytest.mark.parametrize("at_hand", [False, True])
def test_of_a_base_that_is_not_ours_only_the_list_is_known(work, monkeypatch, at_hand):
    monkeypatch.setattr(ground.Listed, "copies", ground.Emoji.copies)
    if at_hand:
        monkeypatch.setattr(quality.ClipIQA, "__init__", lambda self: vars(self).update(_score=mean, reason=""))
    plan.write_all(params.Params.model_validate(parameters()), ROOT, Path("out/plan"))
    for path in Path("out/plan").glob("*-few*"):
        made = read_json(path)
        write_json(path, made | {"settings": made["settings"] | {"known": "list"}})
    run("split", "few")
    found = read_json(work / "out/data/few/prompts.json")
    assert found["beside"] == {"ordinary": ["a dog"], "kept": [], "others": list(ASKED)[:2]} and found["least"] == 0.35
    run("evaluate_prompts", "few", "base")
    run("unlearn_prompts", "few", "naive", "0")
    for row in ("base", "naive"):
        metrics = read_json(work / f"out/cells/few/{row}/0/evaluation/metrics.json")
        assert metrics["copies_others"]["n"] == 2 and metrics["in_turn_copies_others"]["value"] is None
        for name in ("success_original", "clip_iqa_original"):
            assert (metrics[name]["value"] is not None) == at_hand
            assert at_hand or "CLIP-IQA is not at hand" in metrics[name]["reason"]


def mean(images):
    """In the place of CLIP-IQA."""
    return images.mean((1, 2, 3))
