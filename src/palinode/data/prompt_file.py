"""Prompts of tasks on a model that was trained elsewhere: its things, styles, templates and attributes, from a file."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from palinode.core.errors import UserError, one_line
from palinode.data import captions
from palinode.data.captions import Concept, Grammar, Part

UNREAD = 0.5  # a file lists little, and what evaluation asks for must not have been read


class _Part(BaseModel, extra="forbid"):
    training: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


class _Thing(BaseModel, extra="forbid"):
    group: str
    synonyms: tuple[str, ...] = ()


class _File(BaseModel, extra="forbid"):
    templates: _Part
    attributes: _Part = _Part()
    styles: _Part = _Part()
    free: tuple[str, ...] = ()
    things: dict[str, _Thing]


def read(path: str | Path) -> tuple[dict[str, Concept], Grammar]:
    """(things by name, grammar); attributes take the place of backgrounds, `free` lists sentences of another kind.

    UserError for a file that is missing, has an unknown key, a template without exactly one {}, words that could stand
    for two things, or a name that is both a thing and a style.
    """
    try:
        file = _File.model_validate(captions.read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    concepts = {name: Concept(name, thing.group, thing.synonyms) for name, thing in file.things.items()}
    captions.check_words(concepts, path)
    templates = Part(file.templates.training, file.templates.new)
    styles = Part(file.styles.training, file.styles.new)
    attributes = Part(file.attributes.training, file.attributes.new)
    for part, texts in (("templates", templates.all), ("free", file.free)):
        wrong = [text for text in texts if "{}" not in text or text.count("{") + text.count("}") > 2]
        if wrong:
            raise UserError(f"{path}: {part}: {wrong[0]!r} does not hold {{}} once, the place of the thing")
    if not templates.training:
        raise UserError(f"{path}: templates.training: the list is empty")
    shared = concepts.keys() & set(styles.all)
    if shared:
        raise UserError(f"{path}: {min(shared)!r} is both a thing and a style")
    return concepts, Grammar(templates, styles, attributes, UNREAD, ", in the style of {}", ", {}", file.free)
