"""What a run that was killed leaves: processes that end soon after it, and their notes, which DVC would wait for."""

import json
import time
from pathlib import Path

import psutil

from palinode.core.errors import UserError

NOTES = Path(".dvc/tmp/rwlock")  # DVC's: which process reads and writes which path
PATIENCE = 30.0  # seconds
TOLERANCE = 2.0  # seconds: how exact the times of processes and files are


def clear() -> None:
    """Return when no other process works on the outputs. UserError when one still does after a while."""
    end = time.monotonic() + PATIENCE
    while busy := _list_busy():
        if time.monotonic() > end:
            pid, command = busy.popitem()
            raise UserError(f"process {pid} is at work on the outputs ({command}): wait for it, or end it")
        time.sleep(0.5)
    NOTES.unlink(missing_ok=True)


def _list_busy() -> dict[int, str]:
    """{process: command} of those that are still at work. Notes that stay unreadable are of nobody."""
    if not NOTES.exists():
        return {}
    written = NOTES.stat().st_mtime
    try:
        notes = json.loads(NOTES.read_text(encoding="utf-8"))
    except ValueError:
        being_written = time.time() - written < TOLERANCE
        return {0: "it writes its notes"} if being_written else {}
    infos = [*notes.get("write", {}).values(), *(info for infos in notes.get("read", {}).values() for info in infos)]
    return {info["pid"]: info["cmd"] for info in infos if _is_at_work(info["pid"], written)}


def _is_at_work(pid: int, written: float) -> bool:
    """Whether the process lives, and is the one that was noted: it began before the note was written."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + TOLERANCE
    except psutil.NoSuchProcess:
        return False
