"""`make repro` in a tiny project: stages side by side, failures, kills, sweeps, and what is refused."""

import json
import os
import random
import re
import subprocess
import sys
import time

import pytest
from filelock import FileLock
from project import Project

from palinode.core.io import read_csv

BROKEN = '''"""A method that cannot make a step."""

from dataclasses import dataclass

from palinode.methods import Method


@dataclass
class Broken(Method):
    """It fails."""

    def losses(self, model, batch):
        raise MemoryError("no room")

    def combine(self, grads):
        return grads["retain"], {}
'''


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


@pytest.mark.slow
def test_the_number_of_jobs_changes_no_byte(finished, project):
    """Nor does it matter that half of the stages had run before."""
    project.run("rm", "-r", ".dvc/cache", "out/cells", "out/tasks")
    project.launch(JOBS="4")
    assert project.lock == finished.lock
    assert project.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_nothing_to_do_is_said(project):
    assert project.launch().stdout == "nothing to do: every stage is up to date\n"


@pytest.mark.slow
def test_a_dry_run_lists_what_would_run(project):
    project.change("rows/siss-05/lr", 2e-3)
    shown = project.launch("--dry-run").stdout
    listed = re.findall(r"^(\S+): \d+ s, \d\.\d GiB$", shown, re.MULTILINE)
    cell = [f"{verb}-images@tiny-0-siss-05-0" for verb in ("unlearn", "sample", "evaluate")]
    assert sorted(listed) == sorted([*cell, "report"])
    assert "4 stages" in shown and "8 at once" in shown
    assert project.launch("--dry-run").stdout.endswith(shown[shown.index("4 stages") :]), "it has run nothing"


@pytest.mark.slow
def test_a_failing_cell_stops_its_successors_only(project):
    (project.folder / "src/palinode/methods/broken.py").write_text(BROKEN)
    project.change("rows/broken", {"method": "broken", "lr": 1e-3, "steps": 4})
    project.change("rows/siss-05/lr", 2e-3)
    project.change("images/rows", ["naive", "siss-05", "broken"])
    ended = project.launch(check=False)
    assert ended.returncode == 1
    failed = "unlearn-images@tiny-0-broken-0"
    assert f"error: {failed}: out of memory: no room (see out/logs/{failed}.log)\n" in ended.stderr
    assert "not run, because they wait for what failed: evaluate-images@tiny-0-broken-0, report, sample" in ended.stderr
    status = json.loads(project.dvc("status", "--json"))
    assert not any("siss-05" in name for name in status), "the other cell has ended"
    project.change("images/rows", ["naive", "siss-05"])
    assert project.launch().returncode == 0


def kill_at(project: Project, seconds: float) -> None:
    """Start the launcher and kill it, and nothing else, after so long."""
    environment = project.environment | {"PYTHONPATH": "src"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(project.launcher(), cwd=project.folder, env=environment, **pipes)
    time.sleep(seconds)
    started.kill()
    started.wait()


@pytest.mark.slow
@pytest.mark.parametrize("moments", [2, pytest.param(10, marks=pytest.mark.full)])
def test_a_killed_launcher_leaves_everything_resumable(finished, project, moments):
    """SIGKILL at random moments, then the same command: the same lock, and no stage works on without it."""
    project.run("rm", "-r", ".dvc/cache", "out/cells", "out/references")
    draw = random.Random(moments)
    for _ in range(moments):
        kill_at(project, draw.uniform(2, 20))
    project.launch()
    assert project.lock == finished.lock
    assert not project.leftovers()


@pytest.mark.slow
def test_an_interrupted_launcher_ends_its_stages(project):
    project.change("rows/siss-05/steps", 100_000)
    log = project.folder / "out/logs/unlearn-images@tiny-0-siss-05-0.log"
    log.unlink()
    environment = project.environment | {"PYTHONPATH": "src"}
    started = subprocess.Popen(
        project.launcher(),
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: log.exists() and "it/s" in log.read_text())
    try:
        started.terminate()  # as Ctrl-C, which a test that runs in the background does not get
        _, errors = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 1 and errors.endswith("interrupted: the same command continues from here\n")
    assert not is_running("siss-05"), "no stage works on"


def is_running(word: str) -> bool:
    listed = subprocess.run(["ps", "ax", "-o", "command"], capture_output=True, text=True, check=True).stdout
    return any("stages/unlearn.py" in line and word in line for line in listed.splitlines())


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


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


@pytest.mark.slow
def test_the_lock_of_a_dead_process_holds_nobody_up(project):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    notes = {"read": {}, "write": {str(project.folder / "out/bases"): {"pid": dead.pid, "cmd": "dvc repro"}}}
    (project.folder / ".dvc/tmp/rwlock").write_text(json.dumps(notes))
    assert project.launch().returncode == 0
