"""Base models, which unlearning starts from: one folder a kind, one file a verb (prepare, judge, pretrain, gate,
second_judge)."""

import importlib
from types import ModuleType

from palinode.core.work import Work
from palinode.params.bases import BaseKind

FOLDERS: dict[BaseKind, str] = {
    "unconditional": "unconditional",
    "class": "class_conditional",
    "text": "text_to_image",
}


def module_name(kind: BaseKind, verb: str) -> str:
    """The module with `run(work)` for a verb and a kind."""
    return f"palinode.bases.{FOLDERS[kind]}.{verb}"


def load(work: Work, verb: str) -> ModuleType:
    """The module with `run(work)` for a stage of a base, whose plan says of which kind the base is."""
    return importlib.import_module(module_name(work.kind, verb))
