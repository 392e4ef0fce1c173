"""Split the images of a task into forget and retain sets."""

from palinode.core.io import atomic
from palinode.core.work import Work
from palinode.data.splits import prepare_task
from palinode.params.stage_settings import PrepareImages


def run(work: Work, task: str) -> None:
    with atomic(work.outputs[0]) as folder:
        metadata = prepare_task(work.settings(PrepareImages), folder)
    for number, subject in enumerate(metadata["subjects"]):
        distance = subject["hit_distance"]
        print(f"{task}, subject {number}: n = {metadata['n']}, k = {subject['k']}, hit distance {distance:.4g}")
