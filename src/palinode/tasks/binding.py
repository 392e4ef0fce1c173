"""Which models each task uses, copied into one folder a task.

A stage's dependencies are paths, and dvc.yaml cannot look up a task's base. So this one cheap stage depends on all
models, and every other stage of a task on its own folder: a new model reruns this stage, and nothing that it does not
change.
"""

import shutil
from pathlib import Path

from palinode.core.io import atomic, write_absence
from palinode.core.work import Work
from palinode.params.stage_settings import Bind, Bound


def bind(work: Work) -> None:
    """out/bases/<task>/: base/, judge/, second-judge/, detect/ for tasks of prompts, and a folder a reference row.

    The reference rows of a concept task lie in a folder a subject, since each subject has an oracle of its own.
    """
    settings = work.settings(Bind)
    models = work.input("models")
    with atomic(work.outputs[0]) as folder:
        folder.mkdir(parents=True)
        for task, bound in settings.tasks.items():
            _bind_task(bound, models, folder / task)


def _bind_task(bound: Bound, models: Path, folder: Path) -> None:
    shutil.copytree(models / bound.base / "model", folder / "base")
    for judge in ("judge", "second-judge"):
        shutil.copytree(models / bound.base / judge, folder / judge)
    if bound.detect:
        shutil.copytree(models / bound.base / "detect", folder / "detect")
    for row, reference in bound.references.items():
        if reference.model is None:
            write_absence(folder / row, reference.reason)
        else:
            shutil.copytree(models / reference.model / "model", folder / row)
