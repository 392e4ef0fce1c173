"""The emoji that a text-to-image base is trained and judged on, put in place."""

import shutil

from palinode.core.errors import Absent
from palinode.core.io import atomic
from palinode.core.work import Work
from palinode.data import emoji
from palinode.params.stage_settings import PrepareTextBase


def run(work: Work) -> None:
    settings = work.settings(PrepareTextBase)
    if not settings.trained:
        raise Absent("the base is a finished model: it is not trained here")
    with atomic(work.outputs[0]) as folder:
        folder.mkdir(parents=True)
        for name in emoji.FILES:
            shutil.copy(emoji.FOLDER / name, folder / name)
