"""`params.yaml`, typed in one place: every key, its type, its default and its meaning."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from palinode.core.errors import UserError, one_line
from palinode.params.attacks import Attacks
from palinode.params.bases import Base, OracleBase, TextBase, Trained, UnconditionalBase
from palinode.params.concept_tasks import ConceptTask
from palinode.params.counts import Counts
from palinode.params.detection import Detection
from palinode.params.fields import Int, Natural, Positive, Rate, Settings, Trainable, Training
from palinode.params.image_tasks import ImageTask
from palinode.params.prompt_tasks import PromptTask

__all__ = ["KINDS", "SEQUENTIAL", "Params", "Row", "Training", "load"]

SEQUENTIAL = "sequential"  # the subject that stands for one model which forgets all subjects in sequence
KINDS: tuple[Literal["images", "concept", "prompts"], ...] = ("images", "concept", "prompts")
TAG = re.compile(r"^(base_models\.[^.:]+)\.(?:unconditional|class|text|oracle)\b")  # pydantic adds the kind to the key
AnyTask = ImageTask | ConceptTask | PromptTask


class Row(Settings):
    method: str
    lr: Rate
    steps: Positive
    paper: str | None = None  # id of the row in reference/*.yaml this one stands beside
    trainable: Trainable = "all"
    clipped: bool = True  # false: the direction is not clipped, whatever its task says
    options: dict = {}


class Images(Settings):
    """Forget given images; no anchor exists. Which tasks, which of their subjects, which rows."""

    tasks: list[str] = []
    subjects: list[Natural] = [0]
    rows: list[str] = []
    lr_multiplier: Rate = 1.0  # the rows' learning rates are multiplied by it: the axis of a sweep


class Concept(Settings):
    """Forget a thing, a style or a class; an anchor takes its place."""

    tasks: list[str] = []
    subjects: list[Natural] = [0]
    rows: list[str] = []
    lr_multiplier: Rate = 1.0  # the rows' learning rates are multiplied by it: the axis of a sweep


class Prompts(Settings):
    """Forget what a base draws from memory under a prompt."""

    tasks: list[str] = []
    subjects: list[Natural | Literal["sequential"]] = [0, 1, "sequential"]
    rows: list[str] = []


class Cluster(Settings):
    """What each stage asks of a cluster, when PALINODE_LAUNCH names one."""

    partition: str | None = None
    gpus: Natural = 1
    cores: Positive = 8
    memory: Annotated[float, Field(gt=0)] = 32  # GiB
    hours: Annotated[float, Field(gt=0)] = 24
    setup: list[str] = []  # shell commands that a job runs first, such as `module load cuda`


class Runtime(Settings):
    """How to run, not what: nothing here is tracked, since nothing here may change a result beyond rounding."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    processes: Positive = 1  # sampling processes; any number gives the same bytes
    deterministic: bool = True  # false: also kernels that add up in no fixed order, whose bytes differ from run to run
    cluster: Cluster = Cluster()


class Threads(Settings):
    """Threads that a stage computes with. Another number rounds otherwise: a change runs the stages again."""

    bases: Positive = 2  # stages of base models, which run one at a time
    cells: Positive = 1  # all others, which run side by side


class Params(Settings):
    root_seed: Int
    seeds: list[Natural]
    threads: Threads = Threads()
    runtime: Runtime = Runtime()
    bases: list[str] = []
    images: Images = Images()
    concept: Concept = Concept()
    prompts: Prompts = Prompts()
    detection: Detection = Detection()
    attacks: Attacks = Attacks()
    counts: Counts = Counts()
    rows: dict[str, Row]
    base_models: dict[str, Base]
    image_tasks: dict[str, ImageTask] = {}
    concept_tasks: dict[str, ConceptTask] = {}
    prompt_tasks: dict[str, PromptTask] = {}

    @model_validator(mode="after")
    def _check(self) -> "Params":
        from palinode.params.names import check

        check(self)
        return self

    def tasks_of(self, kind: str) -> Mapping[str, AnyTask]:
        """Every defined task of a kind."""
        tasks: dict[str, Mapping[str, AnyTask]] = {
            "images": self.image_tasks,
            "concept": self.concept_tasks,
            "prompts": self.prompt_tasks,
        }
        return tasks[kind]

    def enabled(self, kind: str) -> Images | Concept | Prompts:
        """Tasks, subjects and rows of a kind that are run."""
        enabled: dict[str, Images | Concept | Prompts] = {
            "images": self.images,
            "concept": self.concept,
            "prompts": self.prompts,
        }
        return enabled[kind]

    def task(self, name: str) -> AnyTask:
        """The task of this name, of whatever kind."""
        tasks: dict[str, AnyTask] = {**self.image_tasks, **self.concept_tasks, **self.prompt_tasks}
        return tasks[name]

    def recipe(self, base: str) -> Trained:
        """The block by which a base is trained; an oracle's is that of its base."""
        block = self.base_models[base]
        return self.recipe(block.of) if isinstance(block, OracleBase) else block

    def without(self, base: str) -> str | int | None:
        """What an oracle never saw; None for another base."""
        block = self.base_models[base]
        return block.without if isinstance(block, OracleBase) else None

    def oracle_of(self, base: str, without: str | int) -> str | None:
        """The enabled oracle of a base that never saw something, or None."""
        for name in self.bases:
            block = self.base_models[name]
            if isinstance(block, OracleBase) and block.of == base and str(block.without) == str(without):
                return name
        return None

    def unconditional(self, base: str) -> UnconditionalBase:
        """The block of a base that is known to be unconditional."""
        block = self.recipe(base)
        assert isinstance(block, UnconditionalBase), base
        return block

    def text(self, base: str) -> TextBase:
        """The block of a base that is known to be a text-to-image model."""
        block = self.recipe(base)
        assert isinstance(block, TextBase), base
        return block

    def row(self, task: str, row: str) -> Row:
        """The row's settings with the task's override applied."""
        chosen = self.task(task)
        settings = self.rows[row]
        if isinstance(chosen, PromptTask):
            settings = settings.model_copy(update={"steps": chosen.unlearn.steps})
        override = chosen.overrides.get(row)
        if override is None:
            return settings
        values = {key: getattr(override, key) for key in ("lr", "steps", "trainable")}
        changed = {key: value for key, value in values.items() if value is not None}
        return settings.model_copy(update=changed | {"options": settings.options | override.options})


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the whole file; UserError names the first bad key."""
    try:
        return Params.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        line = TAG.sub(r"\1", one_line(error))
        raise UserError(f"{path}: {line}") from None
