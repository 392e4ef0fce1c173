"""Labelled images of a class-conditional base, checked and put in place; an oracle's without one class."""

from pathlib import Path

from palinode.core.io import atomic, write_json
from palinode.core.work import Work
from palinode.data.splits import write_labelled
from palinode.params.stage_settings import PrepareClassBase


def run(work: Work) -> None:
    settings = work.settings(PrepareClassBase)
    shape = (settings.size, settings.size, settings.channels)
    with atomic(work.outputs[0]) as folder:
        folder.mkdir(parents=True)
        classes = write_labelled(Path(settings.images), "train", shape, folder, settings.without)
        if settings.judge is not None:
            write_labelled(Path(settings.judge.train), "judge-train", shape, folder)
            write_labelled(Path(settings.judge.test), "judge-test", shape, folder)
        write_json(folder / "metadata.json", {"classes": classes})
