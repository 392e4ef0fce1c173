"""What every stage script shares: the graph's stage, absences, and the log of what a stage took."""

import json
import shutil
import sys

import pytest
import torch
from project import ROOT

from palinode.core import work
from palinode.core.errors import Absent, UserError
from palinode.core.scratch import Scratch
from palinode.pipeline import stage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the graph."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(monkeypatch, run, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"stages/{arguments[0]}.py", *arguments[1:]])
    stage.main(run)


def test_a_stage_that_ends_well_logs_its_time_and_memory(folder, monkeypatch):
    for _ in range(2):
        start(monkeypatch, lambda work, *cell: None, "sample", "images", "tshirt", "0", "naive", "0")
    lines = [json.loads(line) for line in stage.LOG.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["sample-images@tshirt-0-naive-0"] * 2
    assert all(0 <= line["seconds"] < 60 and 0 < line["GiB"] < 24 for line in lines)


def test_a_log_that_cannot_be_written_does_not_undo_the_stage(folder, monkeypatch, capsys):
    (folder / "out").write_text("a file where the folder should be")
    start(monkeypatch, lambda work: None, "plan")
    assert capsys.readouterr().err.startswith("note: out/log.jsonl was not written: ")


def test_a_scratch_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write .*; PALINODE_SCRATCH names the folder"), Scratch("work", []):
        pass


def test_a_stage_that_fails_logs_nothing(folder, monkeypatch):
    def fail(work):
        raise UserError("no such task")

    with pytest.raises(SystemExit, match="error: no such task"):
        start(monkeypatch, fail, "plan")
    assert not stage.LOG.exists()


def test_an_interrupted_stage_says_how_to_go_on(folder, monkeypatch):
    def interrupt(work):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="interrupted: the same command continues from here"):
        start(monkeypatch, interrupt, "plan")


def test_what_is_absent_is_said_in_every_output(folder, monkeypatch, capsys):
    def absent(work, *cell):
        raise Absent("there is no such subject")

    start(monkeypatch, absent, "unlearn", "images", "tshirt", "3", "naive", "0")
    cell = folder / "out/cells/tshirt/3/naive/0"
    for part in ("model", "training"):
        assert (cell / part / "absent.txt").read_text() == "there is no such subject\n"
    assert "unlearn-images@tshirt-3-naive-0: absent: there is no such subject" in capsys.readouterr().out
    assert stage.LOG.exists(), "a stage that says why it makes nothing has ended well"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("no room for 2 GiB\nmore"),
        RuntimeError("DefaultCPUAllocator: no room for 2 GiB"),
    ],
)
def test_too_little_memory_is_one_line(folder, monkeypatch, error):
    def fill(work):
        raise error

    with pytest.raises(SystemExit, match="^error: out of memory: (smaller batches|.*no room for 2 GiB$)"):
        start(monkeypatch, fill, "plan")


def test_an_operation_without_a_deterministic_kernel_is_one_line(folder, monkeypatch):
    def multiply(work):
        text = "cumsum_cuda_kernel does not have a deterministic implementation, but you set\nmore"
        raise RuntimeError(text)

    told = "^error: cumsum_cuda_kernel has no deterministic kernel here: set runtime.deterministic to false$"
    with pytest.raises(SystemExit, match=told):
        start(monkeypatch, multiply, "plan")


@pytest.mark.parametrize("deterministic", [True, False])
def test_torch_is_strict_where_runtime_says_so(deterministic):
    """With a warning alone, attention on a GPU would add up in any order."""
    try:
        work.set_up_torch("cpu", 1, deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_command_that_is_no_stage_is_named(folder, monkeypatch):
    with pytest.raises(SystemExit, match=r"error: dvc\.yaml has no stage for stages/unlearn\.py images tshirt"):
        start(monkeypatch, lambda work: None, "unlearn", "images", "tshirt")


def test_outside_the_repository_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"error: dvc\.yaml not found: run from the repository's root"):
        start(monkeypatch, lambda work: None, "plan")


def test_a_tool_that_fails_ends_in_one_line(monkeypatch):
    def fail(*arguments):
        raise UserError(f"no task {arguments[0]}")

    monkeypatch.setattr(sys, "argv", ["tools/tune.py", "nothing"])
    with pytest.raises(SystemExit, match="error: no task nothing"):
        stage.run_tool(fail)
