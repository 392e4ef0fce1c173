"""dvc.yaml as this package reads it: which stage a command line is, and the inputs and outputs declared for it."""

import re
from functools import cache
from pathlib import Path

import yaml

from palinode.core.errors import UserError
from palinode.core.work import Work

GRAPH = Path("dvc.yaml")
ITEM = re.compile(r"\$\{item\.(\w+)\}")


def find(script: str, arguments: list[str]) -> Work:
    """The stage that runs `python stages/<script>.py <arguments>`. UserError when dvc.yaml has none."""
    words = [f"stages/{script}.py", *arguments]
    matches = []
    for group, stage in _stages().items():
        pattern = stage["cmd"].split()[2:]  # after PYTHONPATH=src python
        item = _match(pattern, words)
        if item is not None:
            literal = sum(ITEM.fullmatch(word) is None for word in pattern)
            matches.append((literal, group, item))
    if not matches:
        raise UserError(f"dvc.yaml has no stage for {' '.join(words)}")
    # `base` may also be read as the name of a row: the command with more words of its own is meant.
    _, group, item = max(matches, key=lambda match: match[0])
    stage = _stages()[group]
    suffix = "-".join(item.values())
    return Work(
        name=f"{group}@{suffix}" if suffix else group,
        inputs=_paths(stage["deps"], item),
        outputs=_paths(_outputs(stage), item),
    )


def _stages() -> dict[str, dict]:
    if not GRAPH.exists():
        raise UserError("dvc.yaml not found: run from the repository's root")
    return _parse(GRAPH.read_text(encoding="utf-8"))


@cache
def _parse(text: str) -> dict[str, dict]:
    return yaml.safe_load(text)["stages"]


def _outputs(stage: dict) -> list:
    return [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]


def _match(pattern: list[str], words: list[str]) -> dict[str, str] | None:
    """The values of the pattern's items, or None when the words are another command."""
    if len(pattern) != len(words):
        return None
    item = {}
    for part, word in zip(pattern, words, strict=True):
        name = ITEM.fullmatch(part)
        if name:
            item[name[1]] = word
        elif part != word:
            return None
    return item


def _paths(entries: list, item: dict[str, str]) -> list[Path]:
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    return [Path(ITEM.sub(lambda match: item[match[1]], name)) for name in names]
