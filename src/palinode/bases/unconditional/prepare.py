"""The training set of an unconditional base, and what it is checked with."""

from palinode.core.errors import Absent
from palinode.core.io import atomic
from palinode.core.work import Work
from palinode.data.splits import prepare_base
from palinode.params.stage_settings import PrepareImageBase


def run(work: Work) -> None:
    settings = work.settings(PrepareImageBase)
    if not settings.trained and settings.data.judge is None:
        raise Absent("the base is a finished model: it is neither trained nor checked here")
    with atomic(work.outputs[0]) as folder:
        metadata = prepare_base(settings, folder)
    print(f"{work.name}: {metadata}")
