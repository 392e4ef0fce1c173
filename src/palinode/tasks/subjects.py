"""The subjects of a task: which there are, and what they are called where a name feeds a seed."""

from palinode.core.errors import Absent

NO_SUBJECT = "no subject"  # how the reason begins where a task has fewer subjects than the list asks for


def no_subject(number: int, count: int, reason: str = "") -> str | None:
    """Why a task has no subject of that number, perhaps for a `reason`; None when it has one."""
    if number < count:
        return None
    return f"{NO_SUBJECT} {number}: " + (reason or f"the task has {count}, counted from 0")


def check_subject(subject: str, count: int, reason: str = "") -> int:
    """The number of a subject; Absent when the task has none of that number."""
    absent = no_subject(int(subject), count, reason)
    if absent:
        raise Absent(absent)
    return int(subject)


def seed_name(task: str, subject: int) -> str:
    """What a task's subject is called where its name feeds a seed."""
    return task if subject == 0 else f"{task} subject {subject}"
