"""Bad input: one line that names the cause, from the first stage that can know it, and nothing half-written."""

import contextlib
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from project import EVALUATE, PARAMETERS, ROOT, Project, failed, write_data

from palinode import methods, params
from palinode.core.io import read_json
from palinode.pipeline import checks, planning

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CELL = "out/cells/tiny/0/siss-05/0"
UNLEARN = ("unlearn", "images", "tiny", "0", "siss-05", "0")
ROWS = {
    "uce": {"method": "uce"},
    "esd-x": {"method": "esd", "trainable": "cross-attention"},
    "anchored": {"method": "anchored"},
    "sa": {"method": "selective_amnesia"},
}
EMPTY_RANGE = {"method": "siss_selective", "lr": 1, "steps": 4, "options": {"norm": 5, "times": [0.5, 0.5]}}
CONCEPTS = {
    "no-cat": {"base": "mini", "target": "cat", "anchor": "dog"},
    "no-zero": {"base": "two", "target": 0, "anchor": 1},
}


def one_line(project: Project, script: str, *arguments: str, output: str) -> str:
    """The line with which a stage ends in this process; `output` and temporary files must not exist."""
    words = failed(project, script, *arguments)
    assert not (project.folder / output).exists() and not project.leftovers()
    return words


# What the plan refuses, before anything is computed


def everything() -> dict:
    """Tasks of all three kinds on bases of all three kinds."""
    made = tiny.concept_parameters(CONCEPTS, ROWS)
    prompts = tiny.prompt_parameters({}, ["naive"])
    made |= {key: prompts[key] for key in ("detection", "prompts", "prompt_tasks")}
    made["images"] = PARAMETERS["images"]
    made["bases"] = [*PARAMETERS["bases"], "two", "mini"]
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The tiny data beside the shipped one, and images of another shape."""
    folder = tmp_path_factory.mktemp("bad") / "data"
    write_data(folder)
    for name in ("mnist", "emoji"):
        (folder / name).symlink_to(ROOT / "data" / name)
    np.save(folder / "wide.npy", np.zeros((3, 16, 17, 1), np.uint8))
    np.save(folder / "float.npy", np.zeros((3, 16, 16, 1), np.float32))
    return folder


@pytest.fixture
def plans(data, tmp_path) -> Project:
    """A folder in which `plan` runs on tasks of every kind."""
    for name in ("src", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(data)
    project = Project(tmp_path)
    project.write_parameters(everything())
    return project


def test_everything_is_planned_where_nothing_is_wrong(plans):
    plans.call("plan")
    assert (plans.folder / "out/plan/report.json").exists()


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("rows/naive/rate", 1e-3, "rows.naive.rate: unknown parameter"),
        ("image_tasks/tiny/sample/size", 3, "image_tasks.tiny.sample.size: unknown parameter"),
        ("rows/naive/lr", None, "rows.naive.lr: missing parameter"),
        ("rows/naive/lr", "fast", "rows.naive.lr: Input should be a valid number"),
        ("base_models/tiny/pretrain/steps", 0.5, "base_models.tiny.pretrain.steps: Input should be a valid integer"),
        ("rows/siss-0.5", {"method": "siss", "lr": 1e-3, "steps": 4}, "rows: the name 'siss-0.5' may only use"),
        ("image_tasks/tiny.2", {}, "image_tasks.tiny.2"),
        ("images/rows", ["sis-05"], "images.rows: 'sis-05' is not defined under `rows`"),
        ("images/tasks", ["tinny"], "images.tasks: 'tinny' is not defined under `image_tasks`"),
        ("rows/naive/method", "forget_all", "unknown method 'forget_all': there is no methods/forget_all.py"),
        ("rows/naive/method", "_gradients", "unknown method '_gradients'"),
        ("rows/siss-05/options", {"lambda": 0.5}, "rows.siss-05.options: lambda: unknown parameter"),
        ("rows/siss-05/options", {"lam": "half"}, "rows.siss-05.options: lam: Input should be a valid number"),
        ("rows/siss-05/options", {"lam": 1.5}, "rows.siss-05.options: lam: Input should be less than or equal to 1"),
        ("rows/siss-05/options", {"lam": -0.1}, "rows.siss-05.options: lam: Input should be greater than or equal to"),
        ("rows/siss-05/options", {"lam": 0.5}, "rows.siss-05.options: siss: set either `norm`, which `make norms`"),
        ("rows/siss-05/options", {"norm": 0}, "rows.siss-05.options: norm: Input should be greater than 0"),
        ("rows/siss-05", EMPTY_RANGE, "siss_selective: times: no time step lies between 0.5 and 0.5"),
        ("rows/siss-05/options", {"norm": 5, "refresh": 0}, "rows.siss-05.options: refresh: Input should be greater"),
        ("seeds", [], "seeds: the list is empty"),
        ("seeds", [3, 3], "seeds: repeated: 3"),
        ("runtime/device", "gpu7", "runtime.device: String should match pattern"),
    ],
)
def test_a_wrong_parameter_is_refused(plans, path, value, words):
    plans.change(path, value)
    assert words in one_line(plans, "plan", output="out/plan")


@pytest.mark.parametrize("kind, task", [("images", "tiny"), ("prompts", "few")])
def test_more_neighbours_than_retained_pictures_are_refused(plans, kind, task):
    plans.change({"images": "image_tasks", "prompts": "prompt_tasks"}[kind] + f"/{task}/neighbours", 900)
    plans.change("rows/retrack", {"method": "retrack", "lr": 1e-3, "steps": 4})
    plans.change(f"{kind}/rows", ["retrack"])
    words = one_line(plans, "plan", output="out/plan")
    assert f"{task}: neighbours: 900 neighbours are more than the" in words and "retrack needs them" in words


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("base_models/tiny/data/images", "data/none.npy", "base_models.tiny: missing file: data/none.npy"),
        ("base_models/tiny/data/images", "data/none", "base_models.tiny: no images at data/none"),
        ("base_models/tiny/data/reference", "data/none.npy", "base_models.tiny: missing file: data/none.npy"),
        ("base_models/tiny/data/repeated/images", "data/none.npy", "base_models.tiny: missing file: data/none.npy"),
        ("base_models/tiny/data/judge/test", "data/none.npy", "base_models.tiny: missing file: data/none.npy"),
        ("image_tasks/tiny/evaluate/sscd", "sscd.onnx", "tiny: evaluate.sscd: missing file: sscd.onnx"),
        ("base_models/tiny/data/judge/test", "data/train.npy", "base_models.tiny: missing file: data/train-labels.npy"),
        ("base_models/tiny/data/images", "data/wide.npy", "data/wide.npy holds uint8 [3, 16, 17, 1], the task says"),
        ("base_models/tiny/data/images", "data/float.npy", "data/float.npy holds float32 [3, 16, 16, 1], the task"),
        ("base_models/tiny/data/repeated/images", "data/wide.npy", "base_models.tiny: data/wide.npy holds uint8"),
        (
            "base_models/tiny/data/repeated/copies",
            1_000_000_000,
            "tiny.data.repeated.copies: Input should be less than",
        ),
        ("base_models/two/images", "data/none.npy", "base_models.two: missing file: data/none.npy"),
        ("image_tasks/tiny/forget", "data/none.npy", "image_tasks.tiny.forget: missing file: data/none.npy"),
        ("image_tasks/tiny/forget", "data/wide.npy", "image_tasks.tiny.forget: data/wide.npy holds uint8"),
        ("image_tasks/tiny/forget", ["7.png"], "image_tasks.tiny.forget: no images at data/train.npy"),
        ("detection/prompts", "data/none.csv", "missing prompt list: data/none.csv"),
    ],
)
def test_data_that_cannot_be_read_is_refused(plans, path, value, words):
    plans.change(path, value)
    assert words in one_line(plans, "plan", output="out/plan")


def test_more_copies_than_memory_holds_are_refused(plans, monkeypatch):
    monkeypatch.setattr(checks, "LARGEST", 101 * 256)
    plans.call("plan")
    shutil.rmtree(plans.folder / "out/plan")
    plans.change("base_models/tiny/data/repeated/copies", 2)
    assert "102 images of (16, 16, 1) are more than" in one_line(plans, "plan", output="out/plan")


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("concept_tasks/no-cat/target", "unicorn", "concept_tasks.no-cat: target: 'unicorn' is unknown; there are"),
        ("concept_tasks/no-cat/anchor", "unicorn", "concept_tasks.no-cat: anchor: 'unicorn' is unknown; there are"),
        ("concept_tasks/no-cat/anchor", "noto", "target 'cat' and anchor 'noto' are not of one kind"),
        ("concept_tasks/no-cat/anchor", "cat", "concept_tasks.no-cat: target and anchor are both 'cat'"),
        ("concept_tasks/no-cat/target", ["cat", "pig"], "2 targets need as many anchors, not 1"),
        ("concept_tasks/no-zero/target", 11, "concept_tasks.no-zero: target: 11 is unknown; there are 0, 1, 2"),
        ("concept_tasks/no-zero/anchor", 11, "concept_tasks.no-zero: anchor: 11 is unknown; there are 0, 1, 2"),
        ("concept_tasks/no-zero/anchor", 0, "concept_tasks.no-zero: target and anchor are both 0"),
        ("concept_tasks/no-cat/base", "tiny", "concept_tasks.no-cat.base: 'tiny' is not defined"),
        ("image_tasks/tiny/base", "two", "image_tasks.tiny.base: 'two' is not defined"),
        ("attacks/tasks", ["no-dog"], "attacks.tasks: 'no-dog' is not in the list `concept.tasks`"),
        ("concept_tasks/no-zero/trajectory_steps", 9000, "no-zero: trajectory_steps: 9000 are more than the"),
    ],
)
def test_a_concept_that_nothing_defines_is_refused(plans, path, value, words):
    plans.change(path, value)
    assert words in one_line(plans, "plan", output="out/plan")


@pytest.mark.parametrize(
    "oracle, words",
    [
        ({"of": "mini", "without": "dragon"}, "without: 'dragon' is no concept, no style and not 'memorized'"),
        ({"of": "two", "without": 11}, "without: class 11 does not exist: there are 0 to 9"),
        ({"of": "two", "without": "zero"}, "without: 'zero' is no class"),
        ({"of": "tiny", "without": "boots"}, "without: 'boots' is unknown; `repeated` is what 'tiny' repeats"),
        ({"of": "many", "without": 0}, "of: 'many' is not defined under `base_models`"),
        ({"of": "tiny-without-repeated", "without": "repeated"}, "or is an oracle itself"),
    ],
)
def test_an_oracle_without_what_nothing_defines_is_refused(plans, oracle, words):
    plans.change("base_models/other", oracle)
    plans.change("bases", [*everything()["bases"], "other"])
    assert f"base_models.other{'' if 'class 11' in words else '.'}" in (line := failed(plans, "plan"))
    assert words in line and not (plans.folder / "out/plan").exists()


# Names that two things share


def test_one_name_for_two_tasks_is_refused(plans):
    plans.change("concept/tasks", ["no-cat", "no-cat"])
    assert "concept.tasks: repeated: no-cat" in one_line(plans, "plan", output="out/plan")
    plans.write_parameters(everything())
    plans.change("image_tasks/no-cat", everything()["image_tasks"]["tiny"])
    words = one_line(plans, "plan", output="out/plan")
    assert "'no-cat' names two tasks: they would share a folder" in words


def test_no_two_stages_share_a_plan_file(plans):
    """A task may be named like a stage of another task: plan files lie in a folder for each group of stages."""
    made = everything()
    for name in ("concept-no-cat", "unlearn-concept", "no-cat-0"):
        made["image_tasks"][name] = made["image_tasks"]["tiny"]
        made["images"] = made["images"] | {"tasks": [*made["images"]["tasks"], name]}
    paths = [f"{plan.path}.json" for plan in planning.list_plans(params.Params.model_validate(made))]
    assert len(set(paths)) == len(paths)
    plans.write_parameters(made)
    plans.call("plan")
    folder = plans.folder / "out/plan"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.json")} == set(paths)
    names = {read_json(path)["settings"].get("name") for path in (folder / "evaluate-images").iterdir()}
    assert names == {"tiny", "concept-no-cat", "unlearn-concept", "no-cat-0"}


# Rows that no task can run


@pytest.mark.parametrize(
    "kind, rows, words",
    [
        ("images", ["naive", "anchored"], "images.rows: anchored needs an anchor that takes the target's place"),
        ("images", ["sa"], "images.rows: sa needs an anchor that takes the target's place, which tiny"),
        ("images", ["uce"], "images.rows: uce needs an anchor that takes the target's place, which tiny"),
        ("concept", ["siss-05"], "concept.rows: siss-05 needs a model that predicts without a condition, which no-cat"),
        ("prompts", ["sa"], "prompts.rows: sa needs the Fisher information of what is kept"),
    ],
)
def test_a_row_that_no_task_can_run_is_refused(plans, kind, rows, words):
    plans.change(f"{kind}/rows", rows)
    assert words in one_line(plans, "plan", output="out/plan")


def test_cross_attention_is_refused_where_only_classes_are(plans):
    plans.change("concept/tasks", ["no-zero"])
    plans.change("concept/rows", ["esd-x"])
    words = one_line(plans, "plan", output="out/plan")
    assert words.startswith("concept.rows: esd-x needs prompts") and words.endswith("which no-zero does not offer")
    plans.change("concept/tasks", ["no-zero", "no-cat"])
    plans.call("plan")
    absent = read_json(plans.folder / "out/plan/unlearn-concept/no-zero/esd-x.json")["settings"]["absent"]
    assert absent == words.removeprefix("concept.rows: "), "beside a task that can run it, it is absent"
    assert read_json(plans.folder / "out/plan/unlearn-concept/no-cat/esd-x.json")["settings"]["absent"] is None


# A user's method file

HEAD = "from dataclasses import dataclass\nfrom palinode.methods import Method\n"
CLASS = """
@dataclass
class {}(Method):
    def losses(self, model, batch):
        return {{"retain": batch.x.sum()}}

    def combine(self, grads):
        return grads["retain"], {{}}
"""


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
    """Put a file beside the methods, for this test alone."""
    folder = tmp_path / "methods"
    folder.mkdir()
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    before = set(sys.modules)
    yield lambda name, text: (folder / f"{name}.py").write_text(text)
    for name in set(sys.modules) - before:
        if name.startswith("palinode.methods."):
            del sys.modules[name]
            vars(methods).pop(name.rsplit(".", 1)[-1], None)


@pytest.mark.parametrize(
    "text, words",
    [
        ("def losses(:\n", "methods/mine.py cannot be imported: invalid syntax (mine.py, line 1)"),
        ("import torch\n", "methods/mine.py must define exactly one subclass of Method, it has none"),
        (
            HEAD + CLASS.format("First") + CLASS.format("Second"),
            "methods/mine.py must define exactly one subclass of Method, it has First, Second",
        ),
        ("import no_such_package\n", "methods/mine.py cannot be imported: ModuleNotFoundError: No module named"),
        ("1 / 0\n", "methods/mine.py cannot be imported: ZeroDivisionError: division by zero"),
        (HEAD + CLASS.format("Mine").replace("@dataclass\n", ""), "Mine is no dataclass: write @dataclass above it"),
        (HEAD + CLASS.format("Mine").replace("def losses", "def loss"), "methods/mine.py: Mine defines no losses"),
        (HEAD + CLASS.format("Mine") + "\n    needs = frozenset({'luck'})\n", "Mine needs luck, which is not one of"),
    ],
)
def test_a_faulty_method_file_is_refused(plans, drop_in, text, words):
    drop_in("mine", text)
    plans.change("rows/mine", {"method": "mine", "lr": 1e-3, "steps": 2})
    plans.change("images/rows", ["naive", "mine"])
    line = one_line(plans, "plan", output="out/plan")
    assert line.startswith("rows.mine") and words in line


def test_a_method_may_have_the_name_of_a_package(plans, drop_in):
    """A method's file is part of a package of its own, so that it hides no other module."""
    drop_in("torch", "import torch\n" + HEAD + CLASS.format("Torch") + "\n    zero = torch.zeros(1)\n")
    plans.change("rows/mine", {"method": "torch", "lr": 1e-3, "steps": 2})
    plans.change("images/rows", ["naive", "mine"])
    plans.call("plan")
    assert (plans.folder / "out/plan/unlearn-images/tiny/mine.json").exists()


# What a later stage refuses


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Project:
    return Project.create(tmp_path_factory.mktemp("bad") / "ready").begin()


@pytest.fixture
def project(ready, tmp_path) -> Project:
    """A planned and prepared project with an untrained base model."""
    return ready.copy(tmp_path / "project")


def test_a_process_ends_with_one_line_and_status_1(project):
    project.change("rows/naive/rate", 1e-3)
    shutil.rmtree(project.folder / "out/plan")
    done = project.stage("plan", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines() == ["error: params.yaml: rows.naive.rate: unknown parameter"]
    assert not (project.folder / "out/plan").exists() and not project.leftovers()


def test_a_name_the_project_does_not_know(project):
    words = one_line(project, "prepare", "images", "other", output="out/tasks/other")
    assert "missing out/plan/prepare-images/other.json" in words
    words = one_line(project, "unlearn", "images", "tiny", "0", "siss-5", "0", output="out/cells/tiny/0/siss-5")
    assert "missing out/plan/unlearn-images/tiny/siss-5.json" in words
    assert "dvc.yaml has no stage for stages/unlearn.py images tiny" in failed(project, "unlearn", "images", "tiny")
    assert "has no stage for stages/prepare.py faces tiny" in failed(project, "prepare", "faces", "tiny")


@pytest.fixture
def album(data, tmp_path) -> Project:
    """The base's images are a folder of five PNGs, of which one is to be forgotten."""
    for name in ("src", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(data, tmp_path / "data", symlinks=True)
    pictures = tmp_path / "data/pictures"
    pictures.mkdir()
    for i, image in enumerate(np.load(data / "train.npy")[:5]):
        Image.fromarray(image[..., 0]).save(pictures / f"{i}.png")
    project = Project(tmp_path)
    project.write_parameters(PARAMETERS)
    project.change("bases", ["tiny"])
    project.change("base_models/tiny/data/images", "data/pictures")
    project.change("base_models/tiny/data/repeated")
    project.change("base_models/tiny-without-repeated")
    project.change("base_models/tiny/gate")
    project.change("image_tasks/tiny/forget", ["4.png"])
    project.call("plan")
    return project


def empty_forget_set(album):
    album.change("image_tasks/tiny/forget", [])


def forget_all(album):
    album.change("image_tasks/tiny/forget", [f"{i}.png" for i in range(5)])


def forget_twice(album):
    album.change("image_tasks/tiny/forget", ["4.png", "4.png"])


def unknown_file(album):
    album.change("image_tasks/tiny/forget", ["9.png"])


def delete_pictures(album):
    shutil.rmtree(album.folder / "data/pictures")


def truncate_reference(album):
    path = album.folder / "data/reference.npy"
    path.write_bytes(path.read_bytes()[:1000])


def copy_forgotten(album):
    shutil.copy(album.folder / "data/pictures/4.png", album.folder / "data/pictures/5.png")


def damage_picture(album):
    path = album.folder / "data/pictures/2.png"
    path.write_bytes(path.read_bytes()[:60])


def resize_picture(album):
    Image.new("L", (17, 16)).save(album.folder / "data/pictures/2.png")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (empty_forget_set, "image_tasks.tiny.forget: the forget set is empty: k = 0 leaves nothing to unlearn"),
        (forget_all, "image_tasks.tiny.forget: the retain set is empty: k = n leaves nothing to keep"),
        (forget_twice, "image_tasks.tiny.forget: the forget set repeats an image"),
        (unknown_file, "image_tasks.tiny.forget: missing image: data/pictures/9.png"),
        (delete_pictures, "base_models.tiny: no images at data/pictures: put"),
        (truncate_reference, "base_models.tiny: data/reference.npy is not a complete .npy array"),
    ],
)
def test_bad_images_end_the_plan(album, spoil, words):
    shutil.rmtree(album.folder / "out/plan")
    spoil(album)
    assert words in one_line(album, "plan", output="out/plan")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (copy_forgotten, "forget and retain sets overlap: 1 forget image"),
        (damage_picture, "cannot read image data/pictures/2.png"),
        (resize_picture, "data/pictures/2.png is 17x16, the task says 16x16"),
        (truncate_reference, "data/reference.npy is not a complete .npy array"),
    ],
)
def test_bad_images_end_the_preparation(album, spoil, words):
    spoil(album)
    assert words in one_line(album, "prepare", "images", "tiny", output="out/tasks/tiny")


def delete_weights(folder):
    (folder / WEIGHTS).unlink()


def truncate_weights(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def pickle_weights(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"conv_in.weight": torch.device("cpu"), "x": Path()}, folder / "unet/diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (delete_weights, "no diffusion_pytorch_model.safetensors in out/bases/tiny/base/unet"),
        (truncate_weights, "cannot read the weights in out/bases/tiny/base/unet"),
        (pickle_weights, "out/bases/tiny/base/unet/diffusion_pytorch_model.bin holds more than tensors, which"),
    ],
)
def test_a_bad_checkpoint_is_named(project, spoil, words):
    spoil(project.folder / "out/bases/tiny/base")
    assert words in one_line(project, *UNLEARN, output=CELL)


def test_a_loss_that_is_not_finite_is_named(project):
    project.change("rows/naive/lr", 1e30)
    project.call("plan")
    words = one_line(project, "unlearn", "images", "tiny", "0", "naive", "0", output="out/cells/tiny/0/naive")
    named = r"unlearn-images@tiny-0-naive-0: the gradient is not finite at step \d.*lower the learning rate"
    assert re.search(named, words)


@contextlib.contextmanager
def small_files(limit: int):
    """No file may grow beyond `limit` bytes: how a disk refuses, without a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "stage, limit, output",
    [
        (("plan",), 1_000, "out/plan"),
        (("prepare", "images", "tiny"), 5_000, "out/tasks/tiny"),
        (("sample", "images", "tiny", "reference", "base"), 1_000, "out/references/tiny/base"),
        (("pretrain", "tiny"), 5_000, "models/tiny/model"),  # its checkpoint
        (UNLEARN, 50_000, f"{CELL}/model"),  # its weights
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_disk_that_refuses_is_named(project, stage, limit, output):
    if stage == UNLEARN:  # no checkpoint before the end
        project.change("rows/siss-05/steps", 1)
        project.call("plan")
    shutil.rmtree(project.folder / output, ignore_errors=True)
    with small_files(limit):
        words = one_line(project, *stage, output=output)
    assert re.search(r"cannot write .*File too large", words)


def test_two_processes_on_one_cell(project):
    project.change("rows/siss-05/steps", 1_000_000)
    project.call("plan")
    environment = project.environment | {"PYTHONPATH": "src"}
    command = project.command(*UNLEARN)
    first = subprocess.Popen(command, cwd=project.folder, stderr=subprocess.DEVNULL, env=environment)
    try:
        while not list(project.scratch.glob("*/lock")):
            assert first.poll() is None, "the first process ended early"
            time.sleep(0.1)
        words = one_line(project, *UNLEARN, output=CELL)
        assert words == "another process is already working on unlearn-images@tiny-0-siss-05-0"
        assert first.poll() is None, "and the first works on"
    finally:
        first.kill()
        first.wait()


def test_a_trunk_with_another_digest_is_refused(project):
    (project.folder / "alexnet.pth").write_bytes(b"other weights")
    project.change("image_tasks/tiny/evaluate", EVALUATE | {"lpips_trunk": "alexnet.pth"})
    project.call("plan")
    cell = "out/cells/tiny/0/base/0/evaluation"
    words = one_line(project, "evaluate", "images", "tiny", "0", "reference", "base", output=cell)
    assert "alexnet.pth" in words and "7be5be79" in words


def test_a_plan_of_other_code_is_named(project):
    path = project.folder / "out/plan/unlearn-images/tiny/siss-05.json"
    path.write_text(path.read_text().replace('"trainable"', '"trains"'))
    words = one_line(project, *UNLEARN, output=CELL)
    assert "siss-05.json is not of this code" in words and "run `dvc repro plan`" in words
