"""Stages as jobs of a cluster, through submitit's local executor, which takes the same path as Slurm."""

import sys

import pytest
from project import PARAMETERS, Project
from test_run import refuse

from palinode.core.errors import UserError
from palinode.pipeline import cluster


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project.create(tmp_path_factory.mktemp("cluster") / "project", PARAMETERS | {"bases": ["tiny"]})


@pytest.mark.slow
def test_a_stage_travels_and_its_output_comes_back(project):
    project.launch("plan")
    project.launch("prepare-base@tiny", PALINODE_LAUNCH="local", JOBS="1")
    log = (project.folder / "out/logs/prepare-base@tiny.log").read_text()
    assert "job " in log and list((project.folder / "out/logs/cluster").glob("*/*_log.out"))
    assert (project.folder / "out/data/tiny").is_dir()
    assert "prepare-base@tiny" in project.lock, "where it ran is not part of the lock"
    assert project.repro("prepare-base@tiny") == set()


@pytest.mark.slow
def test_a_stage_that_fails_there_is_one_line_here(project):
    environment = project.environment | {"PYTHONPATH": "src", "PALINODE_LAUNCH": "local"}
    ended = project.run(*project.command("judge", "nobody"), check=False, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: missing file: out/plan/judge/nobody.json")


@pytest.mark.slow
def test_what_a_cluster_lacks_is_refused_at_once(project):
    assert refuse(project, PALINODE_LAUNCH="moon", JOBS="1") == "error: PALINODE_LAUNCH=moon: slurm or local\n"
    assert "say how many jobs the cluster may get at once" in refuse(project, PALINODE_LAUNCH="local")


def test_submitit_and_slurm_are_asked_for(monkeypatch):
    monkeypatch.setenv(cluster.LAUNCH, "slurm")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="PALINODE_LAUNCH=slurm: there is no sbatch here"):
        cluster.is_named()
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"submitit is not installed: pip install 'palinode\[cluster\]'"):
        cluster.is_named()


def test_small_stages_stay(monkeypatch):
    monkeypatch.setenv(cluster.LAUNCH, "local")
    assert [script for script in ("plan", "bind", "report", "unlearn") if cluster.is_wanted(script)] == ["unlearn"]
    monkeypatch.delenv(cluster.LAUNCH)
    assert not cluster.is_wanted("unlearn")
