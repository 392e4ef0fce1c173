"""Where unfinished work waits: a folder outside the repository's outputs, keyed by everything the work depends on.

DVC deletes the outputs of a stage before it reruns it, so resume points cannot live there. Two runs of the same work
share a key, hence the lock; two runs of different work never do, hence no stale resume.
"""

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palinode.core.errors import UserError
from palinode.core.io import atomic, read_array, read_arrays, read_json, write_array, write_arrays, write_json


def root() -> Path:
    """PALINODE_SCRATCH, else the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("PALINODE_SCRATCH", cache / "palinode"))


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the contents of files and folders, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        files = [Path(path)]
        if Path(path).is_dir():
            files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        for file in files:
            with open(file, "rb") as handle:
                total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


class Checkpoint:
    """The state of half-done work, tensors and plain values, in one file; without a path nothing is kept."""

    def __init__(self, path: Path | None = None):
        self.path = path

    def save(self, state: dict) -> None:
        """Replace the file atomically."""
        if self.path is None:
            return
        buffer = io.BytesIO()  # a full disk is then an OSError, not a failure inside torch
        torch.save(state, buffer)
        with atomic(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load(self) -> dict | None:
        """What was saved last, or None; on the CPU, so that a run may go on on another device."""
        if self.path is None or not self.path.exists():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=True)


class Scratch:
    """A locked folder for one piece of work; a context manager. Kept when the block fails, removed when it succeeds."""

    def __init__(self, name: str, inputs: Iterable[Path]):
        key = hashlib.sha256(f"{name} {torch.__version__} {digest(inputs)}".encode()).hexdigest()[:16]
        self.name = name
        self.folder = root() / f"{name.replace('/', '-')}-{key}"
        self.checkpoint = Checkpoint(self.folder / "checkpoint.pt")

    def __enter__(self) -> "Scratch":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / "lock", "w")  # held until __exit__
        except OSError as error:
            reason = f"{error.strerror}; PALINODE_SCRATCH names the folder for unfinished work"
            raise UserError(f"cannot write {self.folder}: {reason}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(f"another process is already working on {self.name}") from None
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def cached(self, name: str, make: Callable[[Path], None]) -> Path:
        """The finished file `name`, made by `make(temporary_path)` unless an interrupted run already has."""
        path = self.folder / name
        if not path.exists():
            with atomic(path) as temporary:
                make(temporary)
        return path

    def cached_json(self, name: str, make: Callable[[], Any]) -> Any:
        """The finished value `name`, made by `make()` unless an interrupted run already has; through JSON."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def cached_arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The finished arrays `name`, made by `make()` unless an interrupted run already has."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            write_arrays(path, make())
        return read_arrays(path)

    def cached_array(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The finished array `name`, made by `make()` unless an interrupted run already has; memory-mapped."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            write_array(path, make())
        return read_array(path)

    def checkpoint_of(self, name: str) -> Checkpoint:
        """The place for the state of one long piece of the work."""
        return Checkpoint(self.folder / f"{name}.pt")

    def part(self, name: str) -> "Scratch":
        """A folder inside this one for a part of the work; it goes with this one."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Scratch.at(f"{self.name} {name}", folder)

    @classmethod
    def at(cls, name: str, folder: Path) -> "Scratch":
        """A folder that another object of this class, perhaps of another process, has locked."""
        scratch = cls.__new__(cls)
        scratch.name = name
        scratch.folder = folder
        scratch.checkpoint = Checkpoint(folder / "checkpoint.pt")
        return scratch
