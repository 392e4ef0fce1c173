"""What every stage script shares: the log of what a stage took."""

import json
import sys

import pytest

from palinode import stage
from palinode.errors import UserError


def test_a_stage_that_ends_well_logs_its_time_and_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/sample.py", "tshirt", "naive", "0"])
    for _ in range(2):
        stage.main(lambda task, row, seed: None)
    lines = [json.loads(line) for line in stage.LOG.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["sample tshirt naive 0"] * 2
    assert all(0 <= line["seconds"] < 60 and 0 < line["GiB"] < 24 for line in lines)


def test_a_stage_that_fails_logs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/plan.py"])

    def fail():
        raise UserError("no such task")

    with pytest.raises(SystemExit, match="error: no such task"):
        stage.main(fail)
    assert not stage.LOG.exists()
