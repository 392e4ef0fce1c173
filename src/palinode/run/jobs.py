"""The stages that have to run, read from DVC's own graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.core.work import PLANS
from palinode.params import KINDS

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

CELLS = Path("out/cells")


@dataclass(frozen=True)
class Job:
    """One stage that has to run.

    name: DVC's address of it; upstream: the jobs that must have ended before; outputs: paths, relative to the root;
    threads: those it computes with.
    """

    name: str
    upstream: frozenset[str]
    outputs: tuple[Path, ...]
    threads: int = 1

    @cached_property
    def cell(self) -> Path | None:
        """The folder of the cell that this is a part of, `out/cells/<task>/<subject>/<row>/<seed>`."""
        for path in self.outputs:
            if path.is_relative_to(CELLS):
                return CELLS.joinpath(*path.relative_to(CELLS).parts[:4])
        return None

    @property
    def group(self) -> str:
        """The stage of dvc.yaml that it is one of."""
        return group_of(self.name)

    @property
    def is_reference(self) -> bool:
        """Whether it is of a row that the others are read against."""
        return "reference" in self.group.split("-")

    @property
    def row(self) -> tuple[str, str] | None:
        """(task, row) of the cell that it is a part of; None of a reference, and where it is part of no cell."""
        if self.cell is None or self.is_reference:
            return None
        task, _, row, _ = self.cell.relative_to(CELLS).parts
        return task, row

    @cached_property
    def family(self) -> str:
        """The kind of task that it is of; empty for what serves all."""
        words = self.group.split("-")
        return next((kind for kind in KINDS if kind in words), "")


def group_of(name: str) -> str:
    """The stage of dvc.yaml in a name such as `unlearn-images@tshirt-0-naive-0`."""
    return name.split("@")[0]


def open_repository() -> "Repo":
    """DVC's view of the working folder. UserError when there is none, or when its graph cannot be read."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not Path("dvc.yaml").exists():
        raise UserError("dvc.yaml not found: run from the repository's root")
    try:
        repo = Repo(_wait_for_lock=True)
        _ = repo.index.graph
    except DvcException as error:
        raise UserError(f"dvc.yaml: {_flatten(error)}") from None
    return repo


def list_stale(
    repo: "Repo", targets: Sequence[str] = (), force: bool = False, left_out: Sequence[str] = ()
) -> list[Job]:
    """What has to run: stages that have changed, and whatever depends on them; `force` lists every stage.

    targets: stages to look at, with all that they need; none means all. left_out: stages that have run. A job whose
    inputs turn out unchanged is skipped by DVC when its turn comes. UserError for an unknown target.
    """
    import networkx
    from dvc.exceptions import DvcException

    graph = repo.index.graph
    wanted = _collect(repo, targets).difference(left_out)
    stale: dict[str, Job] = {}
    try:
        with repo.lock:
            for stage in networkx.dfs_postorder_nodes(graph):  # what a stage depends on comes first
                if stage.addressing not in wanted:
                    continue
                upstream = frozenset(above.addressing for above in graph.successors(stage)) & stale.keys()
                if force or upstream or stage.changed():
                    stale[stage.addressing] = _describe(stage, upstream)
    except DvcException as error:
        raise UserError(_flatten(error)) from None
    return list(stale.values())


def _collect(repo: "Repo", targets: Sequence[str]) -> set[str]:
    """The names of the targets and of everything that they depend on; of all stages where no target is named."""
    import networkx
    from dvc.exceptions import DvcException

    graph = repo.index.graph
    if not targets:
        return {stage.addressing for stage in graph}
    names = set()
    for target in targets:
        try:
            stages = repo.stage.collect(target)
        except DvcException as error:
            raise UserError(f"{target}: {_flatten(error)}") from None
        if not stages:
            raise UserError(f"{target}: params.yaml enables no such stage")
        for stage in stages:
            names |= {above.addressing for above in [stage, *networkx.descendants(graph, stage)]}
    return names


def _describe(stage: "Stage", upstream: frozenset[str]) -> Job:
    root = Path(stage.repo.root_dir)
    inputs = [Path(dep.fs_path).relative_to(root) for dep in stage.deps if dep.is_in_repo]
    plans = [path for path in inputs if path.is_relative_to(PLANS) and path != PLANS]
    outputs = tuple(Path(out.fs_path).relative_to(root) for out in stage.outs)
    threads = read_json(plans[0])["threads"] if plans and plans[0].exists() else 1
    return Job(stage.addressing, upstream, outputs, threads)


def _flatten(error: Exception) -> str:
    return " ".join(str(error).split())
