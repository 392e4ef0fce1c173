"""What the report reads from its plan file: which cells there are, and in which order it shows them."""

from typing import Literal

from palinode.params.bases import BaseKind
from palinode.params.fields import Int, Settings, Training
from palinode.params.stage_settings import Subject


class ReportRow(Settings):
    method: str
    paper: str | None
    options: dict
    training: Training


class ReportTask(Settings):
    name: str
    kind: Literal["images", "concept", "prompts"]
    subjects: list[Subject]
    rows: dict[str, ReportRow]


class ReportBase(Settings):
    name: str
    kind: BaseKind


class Attacked(Settings):
    task: str
    row: str
    attacks: list[str]


class Counted(Settings):
    task: str
    row: str
    seed: int


class ReportSettings(Settings):
    root_seed: Int
    seeds: list[int]
    tasks: list[ReportTask]
    bases: list[ReportBase]
    detected: list[str]
    attacked: list[Attacked]
    counted: list[Counted]
