"""Put data in place: prepare.py base BASE, or prepare.py KIND TASK [SUBJECT]; the kinds are those of palinode/tasks."""

from palinode import bases, tasks
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, kind: str, name: str, *subject: str) -> None:
    if kind == "base":
        bases.load(work, "prepare").run(work)
    else:
        tasks.load(kind, "prepare").run(work, name, *subject)


if __name__ == "__main__":
    main(run)
