"""Outputs appear only when complete."""

import errno

import numpy as np
import pytest

from palinode import io
from palinode.errors import UserError


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    io.write_array(tmp_path / "a.npy", np.zeros(3))
    monkeypatch.setattr(np.lib.format, "write_array", refuse)
    with pytest.raises(UserError, match=r"cannot write .*a\.npy: No space left on device"):
        io.write_array(tmp_path / "a.npy", np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.zeros(3))


def test_a_failing_block_leaves_the_old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), io.atomic(tmp_path / "out") as folder:
        folder.mkdir()
        (folder / "half").write_text("half")
        _ = 1 / 0
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


def test_equal_arrays_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        io.write_arrays(tmp_path / f"{name}.npz", {"y": np.arange(3), "x": np.ones((2, 2))})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert np.load(tmp_path / "a.npz")["y"].tolist() == [0, 1, 2]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        io.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_table_has_every_column_and_six_digits(tmp_path):
    lines = [{"step": 1000000, "loss": 1 / 3}, {"step": 2, "name": "a, b"}]
    io.write_csv(tmp_path / "a.csv", lines)
    assert (tmp_path / "a.csv").read_text() == 'step,loss,name\n1000000,0.333333,\n2,,"a, b"\n'
    io.write_csv(tmp_path / "a.csv", [], ("x", "y"))
    assert (tmp_path / "a.csv").read_text() == "x,y\n"
