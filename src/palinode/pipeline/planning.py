"""What each stage will do: one small file per stage with the settings it reads and the code it runs.

Every stage depends on its own file in out/plan/, and reads its settings from there, so what a stage sees is exactly
what DVC tracks: editing one row's learning rate or one method's code changes the files of its cells and of nothing
else, and the difference between two versions of a file says why a stage runs again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from palinode.core.io import write_json
from palinode.params import KINDS, Params
from palinode.pipeline import base_plans, checks, fingerprint, task_plans


@dataclass(frozen=True)
class Plan:
    """One plan file.

    path: below out/plan, without its ending; settings: what the stage reads; script: the stage's script, None for what
    is no stage; modules: those it loads by name; data: files and folders of `data` that it reads, whose content counts;
    threads: those it computes with.
    """

    path: str
    settings: BaseModel
    script: str | None
    modules: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    threads: int = 1


def write_all(params: Params, root: Path, folder: Path) -> None:
    """Write the plan of every stage of `params` into `folder`. UserError for whatever can be known to fail."""
    checks.check(params, root)
    digests: dict[str, str] = {}
    for plan in list_plans(params):
        code = {}
        if plan.script is not None:
            code = fingerprint.hash_code(root / "stages" / f"{plan.script}.py", root / "src", plan.modules)
        for name in plan.data:
            if name not in digests:
                digests[name] = checks.hash_data(root / name)
        content = {
            "threads": plan.threads,
            "settings": plan.settings.model_dump(mode="json"),
            "data": {name: digests[name] for name in plan.data},
            "code": code,
        }
        write_json(folder / f"{plan.path}.json", content)


def list_plans(params: Params) -> Iterator[Plan]:
    """Every plan file of the graph."""
    of_bases = params.threads.bases
    of_cells = params.threads.cells
    yield Plan("runtime", params.runtime, None)
    for base in params.bases:
        for planned in base_plans.plan_base(params, base):
            yield Plan(*planned, threads=of_bases)
    for base in params.detection.bases:
        for planned in base_plans.plan_detection(params, base):
            yield Plan(*planned, threads=of_bases)
    yield Plan("bind", task_plans.plan_bind(params), "bind")
    for kind in KINDS:
        for task in params.enabled(kind).tasks:
            for planned in task_plans.plan_task(params, kind, task):
                yield Plan(*planned, threads=of_cells)
    yield Plan("report", task_plans.plan_report(params), "report", threads=of_cells)
