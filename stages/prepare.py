"""Split a task's images into forget and retain sets: prepare.py TASK."""

from pathlib import Path

from palinode.data.splits import prepare
from palinode.io import atomic
from palinode.settings import read
from palinode.stage import main


def run(task: str) -> None:
    with atomic(Path("out/data") / task) as folder:
        facts = prepare(read(f"prepare-{task}"), folder)
    print(f"{task}: n = {facts['n']}, k = {facts['k']}, hit distance {facts['hit_distance']:.4g}")


if __name__ == "__main__":
    main(run)
