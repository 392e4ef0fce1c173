"""Subjects: what a task forgets one at a time. A number that a task does not have is absent, with its reason.

Stages are called as DVC calls them: each one only once everything exists that dvc.yaml says it depends on.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from project import EVALUATE, PARAMETERS, ROOT, call_stage, digits, untrained_base
from tiny import untrained, write_plan

from palinode.classifiers import digits as digit_judge
from palinode.classifiers import storage
from palinode.core.io import absence, read_array, read_csv, read_json, write_absence
from palinode.data.splits import read_subject
from palinode.models import unconditional
from palinode.params import Params
from palinode.params.report_settings import ReportSettings
from palinode.pipeline import graph, planning
from palinode.report import collect
from palinode.tasks.subjects import NO_SUBJECT, seed_name

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

__all__ = ["untrained"]  # a fixture


def run(script: str, *arguments: str) -> list[Path]:
    """One stage, whose inputs have to exist, as for DVC; its outputs, which exist afterwards."""
    work = graph.find(script, list(arguments))
    missing = [path for path in work.inputs if not path.exists()]
    assert not missing, f"{work.name} depends on what no stage has made: {missing}"
    call_stage(script, *arguments)
    assert all(path.exists() for path in work.outputs), work.name
    return work.outputs


def run_cell(kind: str, task: str, subject: str, row: str) -> list[Path]:
    """All stages of a cell; their outputs."""
    scripts = ("unlearn", "evaluate") if kind == "prompts" else ("unlearn", "sample", "evaluate")
    return [path for script in scripts for path in run(script, kind, task, subject, row, "0")]


def read_task() -> collect.Task:
    (task,) = collect.collect(ReportSettings(**read_json(Path("out/plan/report.json"))["settings"]), Path())
    return task


# Images: two faces

FACES = ["06.png", "07.png"]


def face_parameters(**changes) -> dict:
    """Eight pictures in a folder, two of which are faces to forget, each a subject of its own."""
    data = {
        "images": "data/pictures",
        "reference": "data/reference.npy",
        "judge": {"train": "data/mnist/judge-train.npy", "test": "data/mnist/judge-test.npy"},
        "size": 16,
        "channels": 1,
    }
    made = PARAMETERS | {"bases": ["album"], "images": {"tasks": ["faces"], "subjects": [0, 1, 2], "rows": ["naive"]}}
    made["base_models"] = {"album": PARAMETERS["base_models"]["tiny"] | {"data": data, "gate": None}}
    task = {
        "base": "album",
        "forget": FACES,
        "subjects": "each",
        "unlearn": {"batch": 4},
        "sample": {"steps": 3, "count": 16, "chunk": 4},
        "evaluate": EVALUATE,
    }
    return made | {"image_tasks": {"faces": task | changes}}


@pytest.fixture
def faces(tmp_path, monkeypatch) -> Path:
    """A working folder with those pictures and an untrained base."""
    for name in ("src", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    pictures = tmp_path / "data/pictures"
    pictures.mkdir(parents=True)
    (tmp_path / "data/mnist").symlink_to(ROOT / "data/mnist")
    images, _ = digits("train", range(8), 1)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(pictures / f"{i:02d}.png")
    np.save(tmp_path / "data/reference.npy", digits("reference", range(10), 8)[0])
    unconditional.save(untrained_base(), tmp_path / "models/album/model")
    storage.save(digit_judge.Judge(16, 1, 10), tmp_path / "models/album/judge", {})
    write_absence(tmp_path / "models/album/second-judge", "it forgets no concept")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


def prepare_faces(made: dict) -> tuple[Path, dict]:
    write_plan(made)
    call_stage("bind")
    (folder,) = run("prepare", "images", "faces")
    return folder, read_json(folder / "metadata.json")


def test_data_of_two_faces_is_prepared_once(faces):
    folder, metadata = prepare_faces(face_parameters())
    images, _ = digits("train", range(8), 1)
    assert metadata["n"] == 8 and [subject["forget"] for subject in metadata["subjects"]] == [[0], [1]]
    assert sorted(path.name for path in folder.iterdir()) == [
        "forget.npy",
        "metadata.json",
        "neighbours.npy",
        "reference.npy",
        "retain.npy",
    ]
    assert np.array_equal(read_array(folder / "retain.npy"), images[:6]), "what no subject forgets"
    assert np.array_equal(read_array(folder / "forget.npy"), images[6:])


@pytest.mark.parametrize("number", [0, 1])
def test_a_subject_retains_the_other_face(faces, number):
    folder, metadata = prepare_faces(face_parameters())
    images, _ = digits("train", range(8), 1)
    retain, forget = read_subject(folder, number, metadata)
    other = 7 - number
    assert np.array_equal(forget, images[[6 + number]])
    assert len(retain) == 7
    assert np.array_equal(retain[np.arange(7)], images[[*range(6), other]])
    assert np.array_equal(retain[np.array([6, 0, 6])], images[[other, 0, other]])
    own = images[6 + number].astype(np.float32)
    distances = np.sqrt(((images[[*range(6), other]] - own) ** 2).sum((1, 2, 3))) / 255
    assert metadata["subjects"][number]["nearest_retain"] == pytest.approx(distances.min(), abs=1e-5)
    assert metadata["subjects"][number]["hit_distance"] == pytest.approx(0.87 * distances.min(), abs=1e-5)


def test_together_is_one_subject(faces):
    folder, metadata = prepare_faces(face_parameters(subjects="together"))
    assert [subject["forget"] for subject in metadata["subjects"]] == [[0, 1]]
    retain, forget = read_subject(folder, 0, metadata)
    assert len(retain) == 6 and len(forget) == 2


@pytest.mark.slow
def test_each_face_is_forgotten_by_a_model_of_its_own(faces):
    prepare_faces(face_parameters())
    for reference in ("base", "oracle", "real"):
        run("sample", "images", "faces", "reference", reference)
    for subject in ("0", "1", "2"):
        for reference in ("base", "oracle", "real"):
            run("evaluate", "images", "faces", subject, "reference", reference)
    models = {}
    for subject in ("0", "1"):
        run_cell("images", "faces", subject, "naive")
        cell = Path("out/cells/faces") / subject / "naive/0"
        models[subject] = (cell / "model/unet/diffusion_pytorch_model.safetensors").read_bytes()
        assert read_json(cell / "evaluation/metrics.json")["nll_forget"]["value"] is not None
    assert models["0"] != models["1"]
    reason = f"{NO_SUBJECT} 2: the task has 2, counted from 0"
    for output in run_cell("images", "faces", "2", "naive"):
        assert absence(output) == reason, output
    assert absence(Path("out/cells/faces/2/base/0/evaluation")) == reason
    naive = read_task().row("naive")
    assert [cell.subject for cell in naive.cells] == ["0", "1"], "the report skips what the task does not have"
    values = [cell.estimate("nll_forget").value for cell in naive.cells]
    estimate = naive.estimate("nll_forget")
    assert estimate.n == 2 and estimate.value == pytest.approx(np.mean(values)), "tables average over subjects"


def test_the_first_subject_keeps_the_tasks_seeds():
    """A task of one subject has the random draws that it had before there were subjects."""
    assert seed_name("tshirt", 0) == "tshirt"
    assert len({seed_name("tshirt", number) for number in range(3)}) == 3


# Concepts: two targets

CONCEPT = {"two-digits": {"base": "two", "target": [0, 2], "anchor": [6, 7]}}
ROWS = {"finetune": {"method": "naive_deletion"}}


def concept_parameters() -> dict:
    made = tiny.concept_parameters(CONCEPT, ROWS)
    made["concept"]["subjects"] = [0, 1, 2]
    return made


@pytest.fixture
def work(tmp_path, monkeypatch, untrained) -> Path:
    """A working folder with untrained conditional models in it."""
    folder = tiny.make_folder(tmp_path, monkeypatch)
    shutil.copytree(untrained, folder / "models")
    return folder


@pytest.mark.slow
def test_each_target_is_forgotten_by_a_model_of_its_own(work):
    write_plan(concept_parameters())
    run("bind")
    bound = Path("out/bases/two-digits")
    for subject, target in {"0": 0, "1": 2}.items():
        assert absence(bound / subject / "oracle") == f"no model was trained without {target}"
    for subject in ("0", "1", "2"):
        run("prepare", "concept", "two-digits", subject)
        run("importance", "concept", "two-digits", subject)
        for script in ("sample", "evaluate"):
            for reference in ("base", "oracle", "other-seed"):
                run(script, "concept", "two-digits", subject, "reference", reference)
    for subject, (target, anchor) in {"0": (0, 6), "1": (2, 7)}.items():
        run_cell("concept", "two-digits", subject, "finetune")
        sets = read_json(Path("out/tasks/two-digits") / subject / "prompts/prompt_sets.json")
        pairs = [(of_target["text"], of_anchor["text"]) for of_target, of_anchor in sets["training"]]
        assert pairs == [(str(target), str(anchor))]
    first, second = (
        read_json(Path("out/cells/two-digits") / subject / "finetune/0/evaluation/metrics.json")
        for subject in ("0", "1")
    )
    assert first.keys() == second.keys()
    run_cell("concept", "two-digits", "2", "finetune")
    task = read_task()
    assert task.subjects == ["0", "1"], "the report skips what the task does not have"
    assert task.row("finetune").estimate("ua_training_prompts").n == 2


def test_a_target_that_does_not_exist_is_absent(work):
    write_plan(concept_parameters())
    run("bind")
    reason = f"{NO_SUBJECT} 2: the task has 2, counted from 0"
    outputs = run("prepare", "concept", "two-digits", "2")
    outputs += run("importance", "concept", "two-digits", "2")
    for reference in ("base", "oracle", "other-seed"):
        outputs += run("sample", "concept", "two-digits", "2", "reference", reference)
    outputs += run("evaluate", "concept", "two-digits", "2", "reference", "base")
    outputs += run_cell("concept", "two-digits", "2", "finetune")
    for output in outputs:
        assert absence(output) == reason, output
    assert not list((work / "scratch").glob("*")), "nothing was begun"


def test_every_subject_of_the_list_has_its_plan_files(work):
    paths = {plan.path for plan in planning.list_plans(Params.model_validate(concept_parameters()))}
    for verb in ("prepare", "evaluate"):
        assert {f"{verb}-concept/two-digits/{subject}" for subject in range(3)} <= paths


# Prompts: one at a time, and in sequence


@pytest.mark.slow
@pytest.mark.parametrize("subjects", [[0, 1, "sequential"], [0, 1]])
def test_sequential_unlearning_can_be_left_out(work, monkeypatch, subjects):
    tiny.let_prompts_count(monkeypatch)
    tiny.place_scores(work / "models", {"threshold": 1.0})
    made = tiny.prompt_parameters(ROWS, ["finetune"])
    made["prompts"]["subjects"] = subjects
    write_plan(made)
    run("bind")
    run("prepare", "prompts", "few")
    for subject in map(str, subjects):
        for reference in ("base", "mitigated"):
            run("sample", "prompts", "few", subject, "reference", reference)
            run("evaluate", "prompts", "few", subject, "reference", reference)
        run_cell("prompts", "few", subject, "finetune")
    task = read_task()
    assert task.subjects == ["0", "1"]
    row = task.row("finetune")
    assert row.estimate("success_original").n == 2
    sequential = [name for name in task.metrics if name.startswith("sequential_")]
    assert bool(sequential) == ("sequential" in subjects)
    if sequential:
        history = read_csv(Path("out/cells/few/sequential/finetune/0/training/training.csv"))
        assert {line["prompt"] for line in history} == {"0", "1"}


def test_a_prompt_that_does_not_exist_is_absent(work, monkeypatch):
    tiny.let_prompts_count(monkeypatch)
    tiny.place_scores(work / "models", {"threshold": 1.0})
    made = tiny.prompt_parameters(ROWS, ["finetune"])
    made["prompts"]["subjects"] = [0, 5]
    write_plan(made)
    run("bind")
    run("prepare", "prompts", "few")
    reason = f"{NO_SUBJECT} 5: the task has 2, counted from 0"
    (sampled,) = run("sample", "prompts", "few", "5", "reference", "base")
    assert absence(sampled) == reason
    for output in run_cell("prompts", "few", "5", "finetune"):
        assert absence(output) == reason, output
