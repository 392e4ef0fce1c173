"""What every kind of task shares: subjects, and the files that a cell of training leaves."""

from pathlib import Path

from palinode.core.errors import Absent
from palinode.core.io import atomic, write_csv, write_json
from palinode.training.unlearning import steps_taken

NO_SUBJECT = "no subject"  # how the reason begins where a task has fewer subjects than the list asks for


def check_subject(subject: str, count: int, reason: str = "") -> int:
    """The number of a subject; Absent when the task has none of that number, perhaps for a `reason`."""
    number = int(subject)
    if number < count:
        return number
    raise Absent(f"{NO_SUBJECT} {number}: " + (reason or f"the task has {count}, counted from 0"))


def seed_name(task: str, subject: int) -> str:
    """What a task's subject is called where its name feeds a seed."""
    return task if subject == 0 else f"{task} subject {subject}"


def write_training(folder: Path, history: list[dict], nfe: dict[str, int]) -> None:
    """training.csv with what was logged, and cost.json with the network evaluations and optimiser steps."""
    with atomic(folder) as out:
        out.mkdir(parents=True)
        write_csv(out / "training.csv", history)
        write_json(out / "cost.json", nfe | {"steps": steps_taken(history)})
