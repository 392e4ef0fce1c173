"""`params.yaml`, typed in one place: every key, its type, its default and its meaning."""

import itertools
import re
from pathlib import Path

import yaml
from pydantic import ValidationError, model_validator

from palinode.errors import UserError, one_line
from palinode.params.bases import ClassBase, TextBase
from palinode.params.concept import ConceptTask
from palinode.params.detection import Detection
from palinode.params.fields import Int, Positive, Rate, Settings, Trainable, Training
from palinode.params.prompts import PromptTask
from palinode.params.robustness import Robustness
from palinode.params.tasks import Task

__all__ = ["Params", "Row", "Task", "Training", "load"]

NAME = re.compile(r"[a-z0-9-]+")  # DVC splits parameter names at dots

class Row(Settings):
    method: str
    lr: Rate
    steps: Positive
    paper: str | None = None  # id of the row in reference/*.yaml this one stands beside
    trainable: Trainable = "all"
    options: dict = {}

class ConceptFamily(Settings):
    """Concept unlearning: forget a thing, a style or a class; an anchor takes its place."""

    tasks: list[str] = []
    rows: list[str] = []
    strength: Rate = 1.0  # the rows' learning rates are multiplied by it: the axis of a sweep

class DataFamily(Settings):
    """Data unlearning: forget given images; no anchor exists."""

    tasks: list[str]
    rows: list[str]

class PromptFamily(Settings):
    """Unlearning of memorised prompts: one model a prompt forgets what its base drew from memory."""

    tasks: list[str] = []
    rows: list[str] = []

class ClassFamily(Settings):
    """Class-conditional bases; each is retrained without each class of `oracles`."""

    bases: list[str] = []
    oracles: list[Int] = []

class TextFamily(Settings):
    """Text-to-image bases; each is retrained without each of the `oracles`: a concept, a style, or `memorized`."""

    bases: list[str] = []
    oracles: list[str] = []

class Runtime(Settings):
    """How to run, not what: nothing here is tracked, since nothing here may change a result beyond rounding."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: Positive = 2
    processes: Positive = 1  # sampling processes (accelerate); any number gives the same bytes

class Params(Settings):
    root_seed: Int
    seeds: list[Int]
    runtime: Runtime = Runtime()
    data: DataFamily
    concept: ConceptFamily = ConceptFamily()
    prompts: PromptFamily = PromptFamily()
    classes: ClassFamily = ClassFamily()
    text: TextFamily = TextFamily()
    detection: Detection = Detection()
    robustness: Robustness = Robustness()
    rows: dict[str, Row]
    tasks: dict[str, Task]
    concept_tasks: dict[str, ConceptTask] = {}
    prompt_tasks: dict[str, PromptTask] = {}
    text_bases: dict[str, TextBase] = {}
    class_bases: dict[str, ClassBase] = {}

    @model_validator(mode="after")
    def _names(self):
        for kind in ("rows", "tasks", "concept_tasks", "prompt_tasks", "text_bases", "class_bases"):
            for name in getattr(self, kind):
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind}: the name {name!r} may only use a-z, 0-9 and '-'")
        for kind, known in (("rows", self.rows), ("tasks", self.tasks)):
            for name in getattr(self.data, kind):
                if name not in known:
                    raise ValueError(f"data.{kind}: {name!r} is not defined under `{kind}`")
        for kind in ("tasks", "concept_tasks", "prompt_tasks"):
            for name, task in getattr(self, kind).items():
                for row in task.overrides:
                    if row not in self.rows:
                        raise ValueError(f"{kind}.{name}.overrides: {row!r} is not defined under `rows`")
        for family, kind in (("text", "text_bases"), ("detection", "text_bases"), ("classes", "class_bases")):
            for name in getattr(self, family).bases:
                if name not in getattr(self, kind):
                    raise ValueError(f"{family}.bases: {name!r} is not defined under `{kind}`")
        for family, tasks in (("concept", "concept_tasks"), ("prompts", "prompt_tasks")):
            for kind, where in (("rows", "rows"), ("tasks", tasks)):
                for name in getattr(getattr(self, family), kind):
                    if name not in getattr(self, where):
                        raise ValueError(f"{family}.{kind}: {name!r} is not defined under `{where}`")
        for name, task in self.concept_tasks.items():
            if task.base not in self.text_bases | self.class_bases:
                raise ValueError(f"concept_tasks.{name}.base: {task.base!r} is not defined under a kind of bases")
            self._check_prompts(name, task)
        for name, task in self.prompt_tasks.items():
            if task.base not in self.text_bases:
                raise ValueError(f"prompt_tasks.{name}.base: {task.base!r} is not defined under `text_bases`")
            if task.sscd and self.text_bases[task.base].known == "emoji":
                raise ValueError(f"prompt_tasks.{name}.sscd is not used: the fixed pictures of {task.base!r} are known")
            if name in self.prompts.tasks and task.base not in self.detection.bases:
                raise ValueError(f"prompts.tasks: {name!r} needs {task.base!r} in the list `detection.bases`")
        for name in self.detection.bases:
            if self.text_bases[name].source and self.detection.prompts is None:
                raise ValueError(f"detection.prompts: what {name!r} was shown is unknown, so list them")
        for kind in ("tasks", "rows"):
            for name in getattr(self.robustness, kind):
                if name not in getattr(self.concept, kind):
                    raise ValueError(f"robustness.{kind}: {name!r} is not in the list `concept.{kind}`")
        taken = [*self.tasks, *self.concept_tasks, *self.prompt_tasks, *self.text_bases, *self.class_bases]
        for name in taken:
            if taken.count(name) > 1:
                raise ValueError(f"{name!r} names two of the tasks and bases: they would share a folder")
        families = {"data": self.data, "concept": self.concept, "prompts": self.prompts}
        if not (self.data.tasks or self.concept.tasks):
            raise ValueError("data.tasks: the list is empty, and so is concept.tasks")
        for (name, family), kind in itertools.product(families.items(), ("tasks", "rows")):
            _check_list(f"{name}.{kind}", getattr(family, kind), filled=bool(family.tasks))
        _check_list("seeds", self.seeds)
        _check_list("detection.detectors", self.detection.detectors)
        return self

    def _check_prompts(self, name: str, task: ConceptTask) -> None:
        """What a finished text-to-image model draws is known from a list of prompts alone, and to no judge."""
        base = self.text_bases.get(task.base)
        if base is None or base.source is None:
            if task.prompts is not None:
                raise ValueError(f"concept_tasks.{name}.prompts is not used: {task.base!r} has prompts of its own")
            return
        if task.prompts is None:
            raise ValueError(f"concept_tasks.{name}: prompts is missing: {task.base!r} has a `source`, so list them")
        if name in self.concept.tasks and task.base not in self.text.bases:
            raise ValueError(f"concept.tasks: {name!r} needs {task.base!r} in the list `text.bases`")
        if name in self.robustness.tasks:
            raise ValueError(f"robustness.tasks: no judge knows what {task.base!r}, the base of {name!r}, draws")

    def row(self, task: str, row: str) -> Row:
        """The row's settings with the task's override applied."""
        tasks = self.tasks | self.concept_tasks | self.prompt_tasks
        settings, override = self.rows[row], tasks[task].overrides.get(row)
        if task in self.prompt_tasks:
            settings = settings.model_copy(update={"steps": tasks[task].unlearn.steps})
        if override is None:
            return settings
        changed = {k: v for k in ("lr", "steps", "trainable") if (v := getattr(override, k)) is not None}
        return settings.model_copy(update=changed | {"options": settings.options | override.options})

def _check_list(name: str, values: list, filled: bool = True) -> None:
    if filled and not values:
        raise ValueError(f"{name}: the list is empty")
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ValueError(f"{name}: repeated: {', '.join(repeated)}")

def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the whole file; UserError names the first bad key."""
    try:
        return Params.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}") from None
