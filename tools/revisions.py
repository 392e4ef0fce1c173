"""The evaluated cells of a task at several revisions, from git or from DVC's cache: what `strengths` compares."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from published import choose_tasks

from palinode import params
from palinode.core.errors import UserError
from palinode.core.work import PLANS, read_plan
from palinode.params.report_settings import ReportSettings
from palinode.report.collect import CELLS, REFERENCE_ROWS, Row, collect
from palinode.report.sections.equal_footing import QUESTIONS

CODE = ("src", "stages", "dvc.yaml")


@dataclass(frozen=True)
class Run:
    """One revision: its strength, the unlearning rows of the task in it, and the reference rows by name."""

    kind: str
    strength: float
    seeds: list[int]
    rows: list[Row]
    references: dict[str, Row]


class Revision:
    """The files of a commit, from git or from DVC's cache, copied into `root` as they are asked for."""

    def __init__(self, name: str, root: Path):
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException
        from dvc.scm import SCM, RevError, resolve_rev

        self.name = name
        self.root = root
        self.errors = (OSError, DvcException)
        try:
            self.commit = resolve_rev(SCM("."), name)
            self.files = DVCFileSystem(".", rev=self.commit)
        except (DvcException, RevError) as error:
            raise UserError(f"{name}: {error}") from None

    def fetch(self, path: Path) -> Path:
        """Where a file or folder now lies. UserError when it is not there."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.files.get(path.as_posix(), str(place), recursive=True)
        except self.errors as error:
            raise UserError(f"{self.name}: {path} is not in DVC's cache ({error})") from None
        return place


def read(task: str, name: str) -> Run:
    """The evaluated cells of a task at a revision, from DVC's cache.

    UserError when they are not there, or other code made them than the commit checked out.
    """
    with tempfile.TemporaryDirectory() as folder:
        revision = Revision(name, Path(folder))
        if subprocess.run(["git", "diff", "--quiet", revision.commit, "HEAD", "--", *CODE], check=False).returncode:
            raise UserError(f"{name} did not run the code of the commit checked out")
        ran = params.load(revision.fetch(Path("params.yaml")))
        settings = read_plan(revision.fetch(PLANS / "report.json"), ReportSettings)
        kinds = {item.name: item.kind for item in settings.tasks}
        if kinds.get(task) not in QUESTIONS:
            raise UserError(f"{name} has no images or concept task {task!r}")
        chosen = choose_tasks(settings, [task]).model_copy(update={"attacked": [], "counted": []})
        for cell in list_cells(chosen):
            revision.fetch(cell / "evaluation")
        (collected,) = collect(chosen, revision.root)
        strength = ran.images.lr_multiplier if collected.kind == "images" else ran.concept.lr_multiplier
        references = {row.name: row for row in collected.rows if row.reference}
        return Run(collected.kind, strength, chosen.seeds, collected.unlearned, references)


def list_cells(settings: ReportSettings) -> list[Path]:
    """The folders of the cells of the one task in the settings."""
    (task,) = settings.tasks
    names = [f"{row}/0" for row in REFERENCE_ROWS[task.kind]]
    names += [f"{row}/{seed}" for row in task.rows for seed in settings.seeds]
    return [CELLS / task.name / str(subject) / name for subject in task.subjects for name in names]
