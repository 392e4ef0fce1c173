"""Stages as jobs of a real Slurm with two nodes on one machine: a node dies, a job is pre-empted, a cell fails.

`make test-cluster` runs it, as root. Where there is no Slurm yet it installs Debian's.
"""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from launching import BROKEN, wait_for
from project import PARAMETERS, Project

pytestmark = pytest.mark.cluster
SCRIPT = Path(__file__).parent / "slurm.sh"
CLUSTER = {"partition": "test", "gpus": 0, "cores": 1, "memory": 2.0, "hours": 1.0}
SEEDS = [0, 1, 2, 3]
LONG = 300  # steps: a training takes half a minute, with what others take of the processor


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root, to start daemons")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        subprocess.run(["bash", SCRIPT, "start", folder], check=True)
        yield folder
        subprocess.run(["bash", SCRIPT, "stop", folder], check=True)


def parameters() -> dict:
    """Eight cells that take a while."""
    rows = {name: row | {"steps": LONG} for name, row in PARAMETERS["rows"].items()}
    return PARAMETERS | {"seeds": SEEDS, "rows": rows, "runtime": {"device": "cpu", "cluster": CLUSTER}}


def list_running() -> dict[str, list[str]]:
    """The jobs that run, on each node."""
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%N %i %j"]
    jobs: dict[str, list[str]] = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        node, number, name = line.split(maxsplit=2)
        if name.startswith("unlearn"):
            jobs.setdefault(node, []).append(number)
    return jobs


def take_away(slurm: Path, node: str) -> None:
    """Kill everything of a node, as a machine that loses its power; first the daemons, which would report the rest."""
    jobs = list_running()[node]
    psutil.Process(int((slurm / f"slurmd-{node}.pid").read_text())).kill()
    kill(lambda process: any(f"slurmstepd: [{job}." in " ".join(process.cmdline()) for job in jobs))
    kill(lambda process: process.environ().get("SLURM_JOB_ID") in jobs)


def kill(is_meant: Callable[[psutil.Process], bool]) -> None:
    """Kill all processes of this machine that are meant."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if is_meant(process):
                process.kill()


def test_eight_cells_outlive_a_node_and_a_preemption(slurm, tmp_path):
    alone = Project.create(tmp_path / "alone", parameters())
    alone.launch(JOBS="2")
    project = alone.clone(tmp_path / "cluster")
    environment = project.environment | {"PYTHONPATH": "src", "PALINODE_LAUNCH": "slurm", "JOBS": "4"}
    started = subprocess.Popen(
        project.launcher(),
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: {"n1", "n2"} <= list_running().keys(), 600)
        subprocess.run(["scontrol", "requeue", list_running()["n1"][0]], check=True)
        take_away(slurm, "n2")
        time.sleep(30)
        subprocess.run(["slurmd", "-N", "n2"], check=True)
        output, _ = started.communicate(timeout=1800)
    finally:
        started.kill()
    assert started.returncode == 0, output
    log = (slurm / "slurmctld.log").read_text()
    assert log.count("Requeuing JobId=") >= 2, "the node's job, and the one that was taken away"
    assert "due to failure of node n2" in log
    assert project.lock == alone.lock, "the same bytes as without a cluster"
    assert project.repro() == set()


def test_a_failing_cell_is_one_line_and_the_others_end(slurm, tmp_path):
    project = Project.create(tmp_path / "failing", PARAMETERS | {"runtime": {"device": "cpu", "cluster": CLUSTER}})
    (project.folder / "src/palinode/methods/broken.py").write_text(BROKEN)
    project.change("rows/broken", {"method": "broken", "lr": 1e-3, "steps": 4})
    project.change("images/rows", ["naive", "broken"])
    ended = project.launch(check=False, PALINODE_LAUNCH="slurm", JOBS="2")
    assert ended.returncode == 1
    assert "error: unlearn-images@tiny-0-broken-0: out of memory: no room" in ended.stderr
    status = json.loads(project.dvc("status", "--json"))
    assert not any("naive" in name for name in status)


def test_an_unknown_partition_is_one_line(slurm, tmp_path):
    made = PARAMETERS | {"runtime": {"device": "cpu", "cluster": CLUSTER | {"partition": "nowhere"}}}
    project = Project.create(tmp_path / "partition", made)
    ended = project.launch(check=False, PALINODE_LAUNCH="slurm", JOBS="1")
    assert ended.returncode == 1
    assert re.search(
        r"^error: prepare-base@\S+: PALINODE_LAUNCH: the job was refused: .*partition", ended.stderr, re.MULTILINE
    )
