"""What `dvc repro` and `dvc exp run` run and leave alone, in copies of one finished tiny project."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from launching import BROKEN, is_running, wait_for
from project import ROOT, Project

from palinode.core.io import read_csv

STAGES = 26  # of the tiny project
ENDED = re.compile(r"^\[\d+/\d+\] (\S+)", re.MULTILINE)  # the launcher's line of a stage
SISS = "src/palinode/methods/siss.py"
SUPERFACTOR = "src/palinode/methods/_superfactor.py"
RESTORED = "the run cache has the rest; outputs kept in git are not restored from it"
METHOD = '''"""Half deletion: keep training on the retain set, at half strength."""

from dataclasses import dataclass

from palinode.methods import Method


@dataclass
class HalfDeletion(Method):
    """L = share * E_{x in X\\\\A} E_{t,eps} ||eps - eps_theta(x_t, t)||^2."""

    share: float = 0.5

    def losses(self, model, batch):
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        return {"retain": self.share * (batch.eps - model.predict(x_t, batch.t)).square().sum() / len(batch.x)}

    def combine(self, grads):
        return grads["retain"], {}
'''


def cells(row: str, seed: int = 0) -> set[str]:
    """The three stages of one cell."""
    return {f"{stage}-images@tiny-0-{row}-{seed}" for stage in ("unlearn", "sample", "evaluate")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A project that was run side by side, from nothing, and committed with its lock."""
    project = Project.create(tmp_path_factory.mktemp("pipeline") / "finished")
    ended = set(ENDED.findall(project.launch("-f", JOBS="2").stdout))
    assert len(ended) == STAGES, sorted(ended)
    project.commit()
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy to change."""
    return finished.copy(tmp_path / "project")


@pytest.mark.slow
def test_what_ran_side_by_side_is_what_dvc_makes(finished, tmp_path):
    """DVC finds nothing to do; and in a clone it gives the same lock by stages in turn, each a process of its own."""
    copy = finished.copy(tmp_path / "copy")
    copy.repro()  # DVC's own notes about files were left behind in the copy
    assert copy.repro() == set()
    assert not finished.leftovers()
    assert not finished.scratch.exists() or not any(finished.scratch.iterdir())
    clone = finished.clone(tmp_path / "clone")
    assert cells("siss-05") < clone.repro("evaluate-images@tiny-0-siss-05-0", warmly=False)
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.full
@pytest.mark.slow
def test_a_serial_run_from_nothing_gives_the_same_lock(finished, tmp_path):
    clone = finished.clone(tmp_path / "clone")
    assert len(clone.repro("-f", warmly=False)) == STAGES
    assert clone.lock == finished.lock
    for name in ("models", "results/metrics.csv"):
        assert clone.digest(name) == finished.digest(name)


@pytest.mark.slow
def test_nothing_changed_runs_nothing(project):
    project.repro()  # DVC's own notes about files were left behind in the copy
    started = time.monotonic()
    assert project.repro() == set()
    seconds = time.monotonic() - started
    print(f"dvc repro with nothing to do: {seconds:.1f} s")
    assert seconds < 15  # 5 on an idle machine


@pytest.mark.slow
def test_a_learning_rate_reruns_its_cells_and_dvc_compares_the_results(project):
    lock = project.lock
    table = project.digest("results/metrics.csv")
    project.change("rows/siss-05/lr", 2e-3)
    assert project.repro() == {"plan", "report"} | cells("siss-05")
    assert project.digest("results/metrics.csv") != table
    check_commands(project)
    project.change("rows/siss-05/lr", 1e-3)
    assert project.repro() <= {"report"}, RESTORED
    assert project.lock == lock and project.digest("results/metrics.csv") == table


def check_commands(project: Project) -> None:
    """DVC's own commands read the results of a run that is not committed."""
    assert json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]["results/metrics.json"]["data"]
    assert json.loads(project.dvc("metrics", "diff", "--json"))["results/metrics.json"]
    for command in ("show", "diff"):
        project.dvc("plots", command, "--out", f"plots-{command}")
        page = (project.folder / f"plots-{command}/index.html").read_text()
        assert "Inception Score (judge) against NLL of the forget image" in page
    assert "siss-05" in project.dvc("exp", "show", "--json")


@pytest.mark.slow
def test_a_comment_or_docstring_reruns_the_plan_alone(project):
    project.edit(SISS, '"""SISS: ', '# A comment.\n"""Again, SISS: ')
    project.edit("src/palinode/methods/_gradients.py", '"""Combining ', '"""On combining ')
    project.edit("stages/pretrain.py", "from palinode import bases\n", "# By kind.\nfrom palinode import bases\n")
    assert project.repro() == {"plan"}
    project.git("checkout", "-q", ".")
    assert project.repro() == set()


@pytest.mark.full
@pytest.mark.slow
def test_a_methods_code_reruns_its_cells(project):
    project.edit(SISS, "+ sigma * batch.eps", "+ 0.9 * sigma * batch.eps")
    assert project.repro() == {"plan", "report"} | cells("siss-05")
    project.git("checkout", "-q", "src")
    assert project.repro() <= {"report"}, RESTORED
    assert project.git("status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "module, old, new, expected",
    [
        (
            "methods/_gradients",
            "ratio * g_retain.norm()",
            "2 * ratio * g_retain.norm()",
            "unlearn-images@tiny-0-siss-05-0",
        ),
        ("report/tables", "\nfrom ", "\nCONSTANT = 1\nfrom ", "report"),
    ],
)
def test_a_shared_module_reruns_what_imports_it(project, module, old, new, expected):
    file = project.folder / f"src/palinode/{module}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert project.repro("plan") == {"plan"}
    assert list(json.loads(project.dvc("status", "--json"))) == [expected]


@pytest.mark.slow
def test_a_fresh_clone_trains_nothing(finished, tmp_path):
    """Judges, base models and checks are kept in git; data is put in place again."""
    clone = finished.clone(tmp_path / "clone")
    bases = ("tiny", "tiny-without-repeated")
    ran = clone.repro(*(f"gate@{base}" for base in bases))  # `judge` and `pretrain` precede `gate`
    assert ran == {"plan", *(f"prepare-base@{base}" for base in bases)}
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_the_launcher_looks_at_no_model_of_a_fresh_clone(finished, tmp_path):
    clone = finished.clone(tmp_path / "clone")
    ended = ENDED.findall(clone.launch("bind").stdout)
    assert sorted(ended) == ["bind", "plan", "prepare-base@tiny", "prepare-base@tiny-without-repeated"]
    assert clone.git("status", "--porcelain") == ""


def run_without(project: Project, module: str, script: str, *arguments: str) -> None:
    """Run a stage in a process of its own and fail if it imports a module."""
    program = (
        "import runpy, sys; module, *sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "assert module not in sys.modules, module"
    )
    environment = project.environment | {"PYTHONPATH": "src"}
    project.run(sys.executable, "-c", program, module, f"stages/{script}.py", *arguments, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("plan",), ("judge", "tiny"), ("report",)], ids=lambda value: value[0])
def test_stages_without_a_diffusion_model_never_import_diffusers(project, arguments):
    run_without(project, "diffusers", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("prepare", "base", "tiny"), ("prepare", "images", "tiny"), ("bind",)], ids="-".join
)
def test_stages_that_copy_images_or_models_never_import_torch(project, arguments):
    run_without(project, "torch", *arguments)


@pytest.mark.slow
def test_axes_can_be_chosen_on_the_command_line(project):
    project.dvc("exp", "run", "-S", "images.rows=[siss-05]", "-S", "seeds=[7]")
    assert cells("siss-05", seed=7) < set(project.lock)
    table = read_csv(project.folder / "results/metrics.csv")
    assert {line["row"] for line in table} == {"real", "base", "oracle", "siss-05"}
    assert {line["seed"] for line in table if line["row"] == "siss-05"} == {"7", "all"}
    unchanged = set(project.lock) - cells("siss-05", seed=7) - {"plan", "report"}
    before = yaml.safe_load(project.git("show", "HEAD:dvc.lock"))["stages"]
    assert all(project.lock[name] == before[name] for name in unchanged)


def read_training(project: Project, lock: dict) -> str:
    """training.csv of the cell of siss-05, as a lock names it in DVC's cache."""
    cache = project.folder / ".dvc/cache/files/md5"
    outs = lock["stages"]["unlearn-images@tiny-0-siss-05-0"]["outs"]
    (digest,) = [out["md5"] for out in outs if out["path"].endswith("/training")]
    listed = json.loads((cache / digest[:2] / digest[2:]).read_text())
    (digest,) = [entry["md5"] for entry in listed if entry["relpath"] == "training.csv"]
    return (cache / digest[:2] / digest[2:]).read_text()


@pytest.mark.slow
def test_a_queued_sweep_runs_the_code_it_carries(project):
    """The code is changed while the experiments are queued, and changed back before they run: only their own copies,
    neither the workspace nor an installed package, can write the extra column."""
    project.edit(SUPERFACTOR, '"skipped": float(s == 0.0)', '"skipped": float(s == 0.0), "marker": 1.0')
    project.dvc("exp", "run", "--queue", "-S", "rows.siss-05.options.lam=0.2,0.8")
    project.git("checkout", "-q", ".")
    project.dvc("exp", "run", "--run-all", "--jobs", "2")
    trained = {}
    for revision in project.git("for-each-ref", "--format=%(refname)", "refs/exps").split():
        if project.run("git", "cat-file", "-e", f"{revision}:dvc.lock", check=False).returncode == 0:
            lam = yaml.safe_load(project.git("show", f"{revision}:params.yaml"))["rows"]["siss-05"]["options"]["lam"]
            trained[lam] = read_training(project, yaml.safe_load(project.git("show", f"{revision}:dvc.lock")))
    assert {0.2, 0.8} <= set(trained), f"experiments: {sorted(trained)}"
    assert all("marker" in trained[lam].splitlines()[0].split(",") for lam in (0.2, 0.8))
    assert trained[0.2] != trained[0.8]
    assert "marker" not in (project.folder / SUPERFACTOR).read_text()


@pytest.mark.full
@pytest.mark.slow
def test_a_new_method_is_one_file_one_block_and_its_name(project):
    assert len(METHOD.splitlines()) <= 20
    lock = project.lock
    table = project.digest("results/metrics.csv")
    (project.folder / "src/palinode/methods/half_deletion.py").write_text(METHOD)
    project.change("rows/half", {"method": "half_deletion", "lr": 1e-3, "steps": 4})
    project.change("images/rows", ["naive", "siss-05", "half"])
    assert project.repro() == {"plan", "report"} | cells("half")
    assert "half" in {line["row"] for line in read_csv(project.folder / "results/metrics.csv")}
    (project.folder / "src/palinode/methods/half_deletion.py").unlink()
    project.git("checkout", "-q", "params.yaml", "dvc.lock")
    assert project.repro() <= {"report"}
    assert project.digest("results/metrics.csv") == table, "the report shows what the lists name"
    changed = {name for name in lock if project.lock[name] != lock[name]}
    assert changed <= {"report"}, "what the removed row left behind is an input of nothing else"
    # No stage deletes another one's outputs, so that the removed row's cell stays among the cells until somebody does.
    shutil.rmtree(project.folder / "out/cells/tiny/0/half")
    assert project.repro() <= {"report"}
    assert project.lock == lock


@pytest.mark.slow
def test_a_subject_that_a_task_does_not_have_is_absent(project):
    project.change("images/subjects", [0, 1])
    new = {
        f"{stage}-images@tiny-1-{row}-0" for stage in ("unlearn", "sample", "evaluate") for row in ("naive", "siss-05")
    }
    new |= {f"evaluate-images-reference@tiny-1-{row}" for row in ("real", "base", "oracle")}
    assert project.repro() == {"plan", "report"} | new
    note = project.folder / "out/cells/tiny/1/naive/0/evaluation/absent.txt"
    assert note.read_text() == "no subject 1: the task has 1, counted from 0\n"
    assert {line["subject"] for line in read_csv(project.folder / "results/metrics.csv")} == {"0", "all"}


# The launcher


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


@pytest.mark.slow
def test_an_interrupted_launcher_ends_its_stages(project):
    project.change("rows/siss-05/steps", 100_000)
    log = project.folder / "out/logs/unlearn-images@tiny-0-siss-05-0.log"
    log.unlink()  # that of the run that is copied
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
    wait_for(lambda: not is_running(project.folder), 3)  # no stage works on


# The graph itself


@pytest.mark.slow
def test_the_committed_lock_is_that_of_the_committed_code(tmp_path):
    """A fresh clone would otherwise train the shipped models again."""
    clone = Project(ROOT).clone(tmp_path / "clone")
    clone.dvc("repro", "-q", "-s", "plan")
    bases = yaml.safe_load((ROOT / "params.yaml").read_text())["bases"]
    shipped = {f"{verb}@{base}" for verb in ("judge", "pretrain", "gate", "second-judge") for base in bases}
    assert shipped <= set(clone.lock)
    status = json.loads(clone.dvc("status", "--json"))
    changes = [change for name, stage in status.items() if name in clone.lock for change in stage]
    assert not [change for change in changes if "changed command" in change]
    files = [item for change in changes for paths in change.values() for item in paths.items()]
    stale = [path for path, how in files if how == "modified"]
    assert not stale, "run the stages of these files, or show that their results stay the same, and record the lock"


def stages() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("name", stages())
def test_stages_can_use_the_run_cache(name):
    """No stage without inputs or outputs, none that always runs, none whose outputs outlive it."""
    stage = stages()[name]
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    flags = {flag for out in outs if isinstance(out, dict) for options in out.values() for flag in options}
    assert stage["deps"] and outs
    assert not {"persist", "push"} & flags and not {"always_changed", "frozen"} & set(stage)
    assert stage["cmd"].startswith("PYTHONPATH=src python stages/"), "a copy runs the code it carries"
    axes = stage.get("matrix", {}).values()
    assert all(isinstance(value, str | int) for axis in axes if isinstance(axis, list) for value in axis)


@pytest.mark.parametrize("name", [name for name in stages() if name != "plan"])
def test_every_stage_but_the_plan_has_one_plan_file(name):
    """Its settings and its code are in it, so that neither `params.yaml` nor `src` is a dependency of its own."""
    deps = stages()[name]["deps"]
    assert len([path for path in deps if path.startswith("out/plan/")]) == 1
    assert not {"params.yaml", "src", "stages", "data"} & set(deps)


def test_every_script_is_a_stage():
    used = {word for stage in stages().values() for word in stage["cmd"].split() if word.startswith("stages/")}
    assert used == {path.relative_to(ROOT).as_posix() for path in Path(ROOT / "stages").glob("*.py")}
