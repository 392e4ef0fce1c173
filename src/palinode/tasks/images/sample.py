"""Draw the samples of a cell, or of a reference row: base, oracle, or real, the training images themselves."""

from pathlib import Path

import numpy as np

from palinode.core.errors import Absent
from palinode.core.io import absence, read_array, write_array
from palinode.core.scratch import Scratch
from palinode.core.work import Work, read_runtime
from palinode.models import unconditional
from palinode.params.stage_settings import SampleImages
from palinode.sampling import workers
from palinode.sampling.unprompted import sample


def run(work: Work, task: str, subject: str, row: str, seed: str = "0") -> None:
    """subject: a number, or `reference`, for a row that is not unlearned and serves all subjects."""
    settings = work.settings(SampleImages)
    out = work.outputs[0] / "samples.npy"
    if row == "real":
        write_array(out, np.asarray(read_array(work.input("retain.npy"))[: settings.sample.count]))
        return
    folder = work.input(f"{task}/{row}" if subject == "reference" else "model")
    reason = absence(folder)
    if reason:
        raise Absent(reason)
    if workers.shared_folder() is not None:
        _make_share(work, folder, settings)
        return
    with work.scratch() as scratch:
        workers.launch(scratch, read_runtime().processes)
        model = unconditional.load(folder, work.device, settings.sample.precision)
        images = sample(model, (settings.root_seed, settings.name), settings.sample, scratch, work.name)
        write_array(out, images)


def _make_share(work: Work, folder: Path, settings: SampleImages) -> None:
    """What one of several processes does: its chunks, into the folder of the process that started it."""
    shared = workers.shared_folder()
    assert shared is not None
    model = unconditional.load(folder, workers.own_device(work.device), settings.sample.precision)
    share = workers.own_share(work.threads)
    scratch = Scratch.at(work.name, shared)
    sample(model, (settings.root_seed, settings.name), settings.sample, scratch, work.name, share=share)
