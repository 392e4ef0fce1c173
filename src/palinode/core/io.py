"""Files that appear only when complete: written to a temporary name, synced, then renamed.

An optional output that does not exist is a folder with the reason in `absent.txt`.
"""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from palinode.core.errors import UserError

ABSENT = "absent.txt"
REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` (file or folder); rename it to `path` when the block succeeds, else remove
    it.

    Raises UserError when the disk refuses (full, read-only).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        for file in [temporary] if temporary.is_file() else sorted(temporary.rglob("*")):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict:
    """Read JSON; UserError when the file is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def write_csv(path: Path, lines: list[dict], columns: Sequence[str] = (), digits: int = 6) -> None:
    """Write a table atomically, one dictionary a line: floats to `digits` digits, what a line lacks is empty.

    columns: where not given, all keys in the order in which they first occur.
    """
    columns = columns or list(dict.fromkeys(key for line in lines for key in line))
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({key: f"{v:.{digits}g}" if isinstance(v, float) else v for key, v in line.items()})


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table, one dictionary a line, all values as text; UserError when it is missing."""
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        # Through `write`, since NumPy's own way into a file does not notice a disk that refuses the last bytes.
        np.lib.format.write_array(SimpleNamespace(write=handle.write), np.asanyarray(array), allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Memory-map one .npy file; UserError when it is missing or damaged."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is not a complete .npy array: {error}") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz atomically, with fixed member dates so that equal arrays give equal bytes."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(arrays[name]))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz; UserError when it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a complete .npz archive: {error}") from None


def write_absence(folder: Path, reason: str) -> None:
    """Let a folder hold the reason why its content does not exist."""
    write_text(Path(folder) / ABSENT, f"{reason}\n")


def absence(folder: Path) -> str | None:
    """The reason why an optional output does not exist, or None when it does."""
    note = Path(folder) / ABSENT
    return note.read_text(encoding="utf-8").strip() if note.exists() else None
