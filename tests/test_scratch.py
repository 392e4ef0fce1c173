"""Unfinished work: kept when a run fails, taken up by the next one, never shared with other work."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from palinode.core.errors import UserError
from palinode.core.scratch import Checkpoint, Scratch

ARRAY = np.arange(6).reshape(2, 3)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


class Once:
    """Makes a value, and refuses to make it again."""

    def __init__(self, value):
        self.value = value
        self.calls = 0

    def __call__(self):
        self.calls += 1
        assert self.calls == 1, "a finished piece was made again"
        return self.value


def interrupt(begin: Callable[[Scratch], None]) -> None:
    """A run that is killed after its pieces are finished."""

    def run(scratch: Scratch) -> None:
        begin(scratch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Scratch("work", []) as scratch:
        run(scratch)


@pytest.mark.parametrize(
    ("kind", "value", "file"),
    [
        ("cached_json", {"x": [1, 2.5, None]}, "piece.json"),
        ("cached_json", [0.1, 0.2], "piece.json"),
        ("cached_array", ARRAY, "piece.npy"),
        ("cached_arrays", {"a": ARRAY, "b": ARRAY[0].astype(np.float32)}, "piece.npz"),
    ],
)
def test_a_finished_piece_is_made_once_even_when_the_run_is_killed(kind, value, file):
    make = Once(value)

    def begin(scratch):
        np.testing.assert_equal(getattr(scratch, kind)("piece", make), value)
        assert (scratch.folder / file).is_file()

    interrupt(begin)
    with Scratch("work", []) as scratch:
        np.testing.assert_equal(getattr(scratch, kind)("piece", make), value)
    assert make.calls == 1
    assert not scratch.folder.exists(), "removed when the work is done"


def test_json_pieces_are_the_same_before_and_after_an_interruption():
    """What is made goes through JSON too: a tuple is a list in either run."""
    with Scratch("work", []) as scratch:
        assert scratch.cached_json("piece", lambda: (1, 2)) == [1, 2]


def test_an_array_is_mapped_rather_than_read():
    with Scratch("work", []) as scratch:
        assert isinstance(scratch.cached_array("piece", lambda: ARRAY), np.memmap)


def test_a_piece_that_fails_leaves_nothing_behind(tmp_path):
    def fail(path):
        path.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Scratch("work", []) as scratch:
        scratch.cached("piece", fail)
    assert [path.name for path in scratch.folder.iterdir()] == ["lock"]
    with Scratch("work", []) as scratch:
        path = scratch.cached("piece", lambda temporary: temporary.write_text("whole"))
        assert path.read_text() == "whole"


def test_a_part_keeps_its_own_pieces_and_goes_with_the_whole():
    def begin(scratch):
        part = scratch.part("first half")
        assert part.folder.parent == scratch.folder
        assert part.name == "work first half"
        part.checkpoint.save({"step": 3})
        scratch.cached_json("piece", lambda: "whole")
        part.cached_json("piece", lambda: "part")

    interrupt(begin)
    with Scratch("work", []) as scratch:
        part = scratch.part("first half")
        assert part.checkpoint.load() == {"step": 3}
        assert scratch.checkpoint.load() is None
        assert part.cached_json("piece", Once("another")) == "part"
        assert scratch.cached_json("piece", Once("another")) == "whole"
    assert not scratch.folder.exists()


def test_another_process_works_in_a_folder_that_is_locked():
    with Scratch("work", []) as scratch:
        shared = Scratch.at("work", scratch.folder)
        shared.cached_array("chunk-4", lambda: ARRAY)
        assert np.array_equal(scratch.cached_array("chunk-4", Once(None)), ARRAY)
        assert shared.checkpoint.path == scratch.checkpoint.path


def test_two_processes_on_one_piece_of_work_are_refused():
    with Scratch("work", []), pytest.raises(UserError, match="another process is already working on work"):
        Scratch("work", []).__enter__()


def test_work_on_other_inputs_has_another_folder(tmp_path):
    judge = tmp_path / "judge"
    judge.mkdir()
    (judge / "weights").write_bytes(b"first")
    first = Scratch("work", [judge])
    again = Scratch("work", [judge])
    (judge / "weights").write_bytes(b"second")
    other = Scratch("work", [judge])
    assert first.folder == again.folder
    assert len({first.folder, other.folder, Scratch("another", [judge]).folder}) == 3


def test_the_key_holds_what_bytes_depend_on_beside_the_inputs(monkeypatch):
    """The threads are in the plan file, which is an input."""
    before = Scratch("work", [])
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert Scratch("work", []).folder != before.folder


def test_a_checkpoint_comes_back(tmp_path):
    checkpoint = Checkpoint(tmp_path / "state.pt")
    assert checkpoint.load() is None
    checkpoint.save({"step": 2, "weights": torch.arange(3)})
    assert checkpoint.load()["weights"].tolist() == [0, 1, 2]
    Checkpoint().save({"step": 1})
    assert Checkpoint().load() is None


def test_a_checkpoint_of_another_device_comes_back_here(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "state.pt")
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:5")
        checkpoint.save({"weights": torch.arange(3)})
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(checkpoint.path)
    assert checkpoint.load()["weights"].tolist() == [0, 1, 2]


def test_several_checkpoints_of_one_work():
    with Scratch("work", []) as scratch:
        scratch.checkpoint_of("first").save({"step": 1})
        assert scratch.checkpoint_of("second").load() is None
        assert scratch.checkpoint_of("first").load() == {"step": 1}
