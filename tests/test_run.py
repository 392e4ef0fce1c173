"""`make repro`: what it refuses, and at length, kills, sweeps and numbers of jobs; more is in test_pipeline.py."""

import json
import os
import random
import subprocess
import sys
import time

import pytest
from filelock import FileLock
from project import Project

from palinode.core.io import read_csv


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A project that is up to date and committed."""
    project = Project.create(tmp_path_factory.mktemp("run") / "project")
    project.launch("-f")
    project.commit()
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy to change."""
    copy = finished.copy(tmp_path / "project")
    copy.repro()  # DVC's own notes about files were left behind
    return copy


@pytest.mark.full
@pytest.mark.slow
def test_the_number_of_jobs_changes_no_byte(finished, project):
    """Nor does it matter that half of the stages had run before."""
    project.run("rm", "-r", ".dvc/cache", "out/cells", "out/tasks")
    project.launch(JOBS="4")
    assert project.lock == finished.lock
    assert project.git("status", "--porcelain") == ""


def kill_at(project: Project, seconds: float) -> None:
    """Start the launcher and kill it, and nothing else, after so long."""
    environment = project.environment | {"PYTHONPATH": "src"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(project.launcher(), cwd=project.folder, env=environment, **pipes)
    time.sleep(seconds)
    started.kill()
    started.wait()


@pytest.mark.full
@pytest.mark.slow
def test_a_killed_launcher_leaves_everything_resumable(finished, project):
    """SIGKILL at ten random moments, then the same command: the same lock, and no stage works on without it."""
    project.run("rm", "-r", ".dvc/cache", "out/cells", "out/references")
    draw = random.Random(0)
    for _ in range(10):
        kill_at(project, draw.uniform(2, 20))
    project.launch()
    assert project.lock == finished.lock
    assert not project.leftovers()


@pytest.mark.full
@pytest.mark.slow
def test_a_sweep_is_recorded_as_an_experiment(project):
    table = project.digest("results/metrics.csv")
    project.launch("--experiment", "-S", "rows.siss-05.lr=2e-3", "-n", "faster")
    assert project.parameters["rows"]["siss-05"]["lr"] == 2e-3
    assert "faster" in project.dvc("exp", "show", "--csv")
    project.git("checkout", "-q", ".")
    assert project.launch().returncode == 0
    assert project.digest("results/metrics.csv") == table
    project.dvc("exp", "apply", "faster")
    assert project.digest("results/metrics.csv") != table
    assert {line["row"] for line in read_csv(project.folder / "results/metrics.csv")} >= {"naive", "siss-05"}


# What is refused


@pytest.fixture(scope="module")
def unrun(tmp_path_factory) -> Project:
    return Project.create(tmp_path_factory.mktemp("unrun") / "project")


def refuse(project: Project, *arguments: str, **environment: str) -> str:
    ended = project.launch(*arguments, check=False, **environment)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


@pytest.mark.slow
def test_what_cannot_be_is_refused_in_one_line(unrun):
    assert refuse(unrun, JOBS="0").startswith("error: JOBS=0: ")
    assert refuse(unrun, JOBS="x").startswith("error: JOBS=x: ")
    assert refuse(unrun, GPUS="7").startswith("error: GPUS=7: no GPU '7' here")
    assert "nothing" in refuse(unrun, "nothing")
    assert refuse(unrun, "-S", "rows.siss-05").startswith("error: -S rows.siss-05: ")


@pytest.mark.slow
def test_a_broken_graph_is_one_line(unrun):
    graph = unrun.folder / "dvc.yaml"
    text = graph.read_text()
    try:
        graph.write_text(text.replace("  plan:", "  plan"))
        assert refuse(unrun).startswith("error: dvc.yaml: ")
    finally:
        graph.write_text(text)


@pytest.mark.slow
def test_a_second_launcher_says_so(unrun):
    (unrun.folder / ".dvc/tmp").mkdir(exist_ok=True)
    with FileLock(unrun.folder / ".dvc/tmp/palinode-run.lock"):
        assert refuse(unrun) == "error: another `make repro` runs in this folder: wait for it to end\n"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(unrun):
    folder = unrun.folder / ".dvc/tmp"
    folder.chmod(0o500)
    try:
        assert "cannot be written" in refuse(unrun)
    finally:
        folder.chmod(0o700)


@pytest.mark.full
@pytest.mark.slow
def test_the_lock_of_a_dead_process_holds_nobody_up(project):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    notes = {"read": {}, "write": {str(project.folder / "out/bases"): {"pid": dead.pid, "cmd": "dvc repro"}}}
    (project.folder / ".dvc/tmp/rwlock").write_text(json.dumps(notes))
    assert project.launch().returncode == 0
