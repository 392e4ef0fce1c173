"""Bad input through the real stages: one line that names the cause, a status that is not 0, nothing half-written."""

import re
import resource
import shutil
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from project import Project

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CELL = "out/cells/tiny/siss-05/0"


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Project:
    return Project.create(tmp_path_factory.mktemp("bad") / "ready").begin()


@pytest.fixture
def project(ready, tmp_path) -> Project:
    """A planned and prepared project with an untrained base model."""
    return ready.copy(tmp_path / "project")


def refused(project: Project, stage: str, *arguments: str, output: str, **options) -> str:
    """The line with which the stage ends; `output` and temporary files must not exist."""
    done = project.stage(stage, *arguments, check=False, **options)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    wrong = [line for line in lines[:-1] if line.startswith("error: ") or "Traceback" in line]
    assert done.returncode == 1 and lines and lines[-1].startswith("error: ") and not wrong, done.stderr
    assert not (project.folder / output).exists() and not project.leftovers()
    return lines[-1].removeprefix("error: ")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("rows/naive/rate", 1e-3, r"rows\.naive\.rate: unknown parameter"),
        ("tasks/tiny/sample/size", 3, r"tasks\.tiny\.sample\.size: unknown parameter"),
        ("rows/naive/lr", None, r"rows\.naive\.lr: missing parameter"),
        ("rows/naive/lr", "fast", r"rows\.naive\.lr: .*number.*'fast'"),
        ("tasks/tiny/pretrain/steps", 0.5, r"tasks\.tiny\.pretrain\.steps: .*0\.5"),
        ("rows/siss-0.5", {"method": "siss", "lr": 1e-3, "steps": 4}, r"rows: the name 'siss-0\.5' may only use"),
        ("tasks/tiny.2", {}, r"tasks"),
        ("data/rows", ["sis-05"], r"data\.rows: 'sis-05' is not defined under `rows`"),
        ("data/tasks", ["tinny"], r"data\.tasks: 'tinny' is not defined under `tasks`"),
        ("rows/naive/method", "forget_all", r"rows\.naive.*unknown method 'forget_all'"),
        ("rows/siss-05/options", {"lambda": 0.5}, r"rows\.siss-05\.options: lambda: unknown parameter"),
        ("rows/siss-05/options", {"lam": "half"}, r"rows\.siss-05\.options: lam: .*'half'"),
        ("seeds", [], "seeds: the list is empty"),
        ("seeds", [3, 3], "seeds: repeated: 3"),
    ],
)
def test_a_wrong_parameter_ends_the_first_stage(ready, tmp_path, path, value, words):
    for name in ("src", "stages"):
        (tmp_path / name).symlink_to(ready.folder / name)
    project = Project(tmp_path)
    project.write_parameters(ready.parameters)
    project.change(path, value)
    assert re.search(words, refused(project, "plan", output="out/plan"))


def test_a_name_the_project_does_not_know(project):
    assert "missing out/plan/prepare-other.json" in refused(project, "prepare", "other", output="out/data/other")
    words = refused(project, "unlearn", "tiny", "siss-5", "0", output="out/cells/tiny/siss-5")
    assert "missing out/plan/unlearn-tiny-siss-5.json" in words


@pytest.fixture(scope="module")
def album(ready, tmp_path_factory) -> Project:
    """The task's images are a folder of five PNGs."""
    project = ready.copy(tmp_path_factory.mktemp("album") / "project")
    (project.folder / "pictures").mkdir()
    for i, image in enumerate(np.load(project.folder / "data/train.npy")[:5]):
        Image.fromarray(image[..., 0]).save(project.folder / f"pictures/{i}.png")
    project.change("tasks/tiny/data/images", "pictures")
    project.change("tasks/tiny/data/forget", ["4.png"])
    project.call("plan")
    project.call("prepare", "tiny")
    shutil.rmtree(project.folder / "out/data")
    return project


def k_is_0(project):
    project.change("tasks/tiny/data/forget", [])


def k_is_n(project):
    project.change("tasks/tiny/data/forget", [f"{i}.png" for i in range(5)])


def overlap(project):
    shutil.copy(project.folder / "pictures/4.png", project.folder / "pictures/5.png")


def corrupt(project):
    path = project.folder / "pictures/2.png"
    path.write_bytes(path.read_bytes()[:60])


def wrong_size(project):
    Image.new("L", (17, 16)).save(project.folder / "pictures/2.png")


def no_pictures(project):
    shutil.rmtree(project.folder / "pictures")


def truncated(project):
    path = project.folder / "data/reference.npy"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (k_is_0, "the forget set is empty: k = 0"),
        (k_is_n, "the retain set is empty: k = n"),
        (overlap, r"forget and retain sets overlap: 1 forget image"),
        (corrupt, r"cannot read image pictures/2\.png"),
        (wrong_size, r"pictures/2\.png is 17x16, the task says 16x16"),
        (no_pictures, r"no images at pictures: put"),
        (truncated, r"data/reference\.npy is not a complete \.npy array"),
    ],
)
def test_bad_images_end_prepare(album, tmp_path, spoil, words):
    project, before = album.copy(tmp_path / "project"), album.parameters
    spoil(project)
    if project.parameters != before:
        project.call("plan")
    assert re.search(words, refused(project, "prepare", "tiny", output="out/data/tiny"))


def missing_weights(folder):
    (folder / WEIGHTS).unlink()


def truncated_weights(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def pickled_weights(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"conv_in.weight": torch.zeros(1)}, folder / "unet/diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing_weights, r"no diffusion_pytorch_model\.safetensors in models/tiny/base/unet"),
        (truncated_weights, r"cannot read the weights in models/tiny/base/unet"),
        (pickled_weights, r"models/tiny/base/unet/diffusion_pytorch_model\.bin is a pickle, which can run code"),
    ],
)
def test_a_bad_checkpoint_is_named(project, spoil, words):
    spoil(project.folder / "models/tiny/base")
    assert re.search(words, refused(project, "unlearn", "tiny", "siss-05", "0", output=CELL))


def test_a_loss_that_is_not_finite_is_named(project):
    project.change("rows/naive/lr", 1e30)
    project.call("plan")
    words = refused(project, "unlearn", "tiny", "naive", "0", output="out/cells/tiny/naive")
    assert re.search(r"naive@tiny seed 0: the gradient is not finite at step \d.*lower the learning rate", words)


def small_files(limit: int):
    """No file may grow beyond `limit` bytes: how a disk refuses, without a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.parametrize(
    ("stage", "arguments", "limit", "output"),
    [
        ("plan", (), 300, "out/plan"),
        ("prepare", ("tiny",), 5_000, "out/data/tiny"),
        ("sample", ("tiny", "base", "0"), 500, "out/cells/tiny/base/0/samples"),
        ("pretrain", ("tiny", "base"), 5_000, "models/tiny/base"),  # its checkpoint
        ("unlearn", ("tiny", "siss-05", "0"), 50_000, f"{CELL}/model"),  # its weights
    ],
)
def test_a_disk_that_refuses_is_named(project, stage, arguments, limit, output):
    if stage == "unlearn":  # no checkpoint before the end
        project.change("rows/siss-05/steps", 1)
        project.call("plan")
    if output != f"{CELL}/model":
        shutil.rmtree(project.folder / output)
    words = refused(project, stage, *arguments, output=output, preexec_fn=small_files(limit))
    assert re.search(r"cannot write .*File too large", words)


def test_two_processes_on_one_cell(project):
    project.change("rows/siss-05/steps", 1_000_000)
    project.call("plan")
    first = subprocess.Popen(
        project.command("unlearn", "tiny", "siss-05", "0"), cwd=project.folder, stderr=subprocess.DEVNULL,
        env=project.environment | {"PYTHONPATH": "src"},
    )  # fmt: skip
    try:
        while not list(project.scratch.glob("*/lock")):
            assert first.poll() is None, "the first process ended early"
            time.sleep(0.1)
        words = refused(project, "unlearn", "tiny", "siss-05", "0", output=CELL)
        assert words == "another process is already working on unlearn-tiny-siss-05-0"
        assert first.poll() is None, "and the first works on"
    finally:
        first.kill()
        first.wait()


def test_a_trunk_with_another_digest_is_refused(project):
    (project.folder / "alexnet.pth").write_bytes(b"other weights")
    project.change("tasks/tiny/evaluate/lpips_trunk", "alexnet.pth")
    project.call("plan")
    words = refused(project, "evaluate", "tiny", "base", "0", output="out/cells/tiny/base/0/evaluation")
    assert "alexnet.pth" in words and "7be5be79" in words
