"""What every stage script shares: the log of what a stage took."""

import json
import sys

import pytest

from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.pipeline import stage


def test_a_stage_that_ends_well_logs_its_time_and_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/sample.py", "tshirt", "naive", "0"])
    for _ in range(2):
        stage.main(lambda task, row, seed: None)
    lines = [json.loads(line) for line in stage.LOG.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["sample tshirt naive 0"] * 2
    assert all(0 <= line["seconds"] < 60 and 0 < line["GiB"] < 24 for line in lines)


def test_a_log_that_cannot_be_written_does_not_undo_the_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/plan.py"])
    (tmp_path / "out").write_text("a file where the folder should be")
    stage.main(lambda: None)
    assert capsys.readouterr().err.startswith("note: out/log.jsonl was not written: ")


def test_a_scratch_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write .*; PALINODE_SCRATCH names the folder"), Scratch("work", []):
        pass


def test_a_stage_that_fails_logs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/plan.py"])

    def fail():
        raise UserError("no such task")

    with pytest.raises(SystemExit, match="error: no such task"):
        stage.main(fail)
    assert not stage.LOG.exists()
