"""Outputs appear only when complete."""

import errno

import numpy as np
import pytest

from palinode.core import io
from palinode.core.errors import UserError


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

    def fail(folder):
        folder.mkdir()
        (folder / "half").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), io.atomic(tmp_path / "out") as folder:
        fail(folder)
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
    io.write_csv(tmp_path / "a.csv", [{"score": 1 / 3}], digits=9)
    assert (tmp_path / "a.csv").read_text() == "score\n0.333333333\n"


def test_a_table_is_read_back_as_text(tmp_path):
    io.write_csv(tmp_path / "a.csv", [{"step": 7, "loss": 0.25}, {"step": 8, "name": "a, b"}])
    assert io.read_csv(tmp_path / "a.csv") == [
        {"step": "7", "loss": "0.25", "name": ""},
        {"step": "8", "loss": "", "name": "a, b"},
    ]
    io.write_csv(tmp_path / "empty.csv", [], ("x", "y"))
    assert io.read_csv(tmp_path / "empty.csv") == []


def test_arrays_come_back(tmp_path):
    arrays = {"y": np.arange(3), "x": np.ones((2, 2), np.float32)}
    io.write_arrays(tmp_path / "a.npz", arrays)
    loaded = io.read_arrays(tmp_path / "a.npz")
    assert list(loaded) == ["x", "y"]
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
    io.write_array(tmp_path / "y.npy", arrays["y"])
    mapped = io.read_array(tmp_path / "y.npy")
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, arrays["y"])


READERS = {"json": io.read_json, "csv": io.read_csv, "npy": io.read_array, "npz": io.read_arrays}


@pytest.mark.parametrize(("ending", "read"), READERS.items())
def test_a_missing_file_is_named(tmp_path, ending, read):
    with pytest.raises(UserError, match=rf"missing file: .*nowhere\.{ending}"):
        read(tmp_path / f"nowhere.{ending}")


@pytest.mark.parametrize(
    ("ending", "words"),
    [("json", "is not valid JSON"), ("npy", "is not a complete .npy array"), ("npz", "is not a complete .npz archive")],
)
def test_a_cut_off_file_is_named(tmp_path, ending, words):
    path = tmp_path / f"a.{ending}"
    io.write_json(tmp_path / "a.json", {"x": list(range(100))})
    io.write_array(tmp_path / "a.npy", np.arange(100))
    io.write_arrays(tmp_path / "a.npz", {"x": np.arange(100)})
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(UserError, match=rf"a\.{ending} {words}"):
        READERS[ending](path)


def test_what_does_not_exist_says_why(tmp_path):
    assert io.absence(tmp_path / "model") is None
    io.write_absence(tmp_path / "model", "the base was not trained here")
    assert io.absence(tmp_path / "model") == "the base was not trained here"
    assert [path.name for path in (tmp_path / "model").iterdir()] == [io.ABSENT]
    (tmp_path / "samples").mkdir()
    assert io.absence(tmp_path / "samples") is None
