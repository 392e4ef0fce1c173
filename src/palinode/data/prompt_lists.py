"""Prompts to score, and what is known of them."""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from palinode.core.errors import UserError
from palinode.data.scenes import EmojiCorpus

KINDS = {  # kind -> whether the model has memorized a picture under such a prompt; None: not known
    "verbatim": True, "template": True, "partial": True, "control": False, "ordinary": False, "detailed": False,
    "unlabelled": None,
}  # fmt: skip


class Prompt(NamedTuple):
    text: str
    kind: str  # of KINDS


def of_corpus(corpus: EmojiCorpus) -> list[Prompt]:
    """The captions of the fixed pictures, controls included, the ordinary ones, and those that leave little open."""
    fixed = [Prompt(picture.caption, picture.kind) for picture in corpus.pictures]
    ordinary = [Prompt(text, "ordinary") for text in corpus.ordinary]
    return fixed + ordinary + [Prompt(text, "detailed") for text in corpus.detailed]


def read(path: str | Path) -> list[Prompt]:
    """A UTF-8 CSV file with a column `prompt` and, where something is known of them, `kind` (of KINDS).

    UserError for a file that is missing, not UTF-8 or not such a table, has no prompt, an empty or a repeated one, or
    an unknown kind.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle, strict=True))
    except FileNotFoundError:
        raise UserError(f"missing prompt list: {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not rows:
        raise UserError(f"{path} lists no prompt")
    if "prompt" not in rows[0]:
        raise UserError(f"{path} has no column `prompt`")
    prompts = [Prompt((row["prompt"] or "").strip(), row.get("kind") or "unlabelled") for row in rows]
    for number, prompt in enumerate(prompts, 1):
        if not prompt.text:
            raise UserError(f"{path}: prompt {number} is empty")
        if prompt.kind not in KINDS:
            raise UserError(f"{path}: unknown kind {prompt.kind!r} of {prompt.text!r}; there are {', '.join(KINDS)}")
    repeated = [text for text, count in Counter(prompt.text for prompt in prompts).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: {len(repeated)} prompt(s) are listed twice, such as {repeated[0]!r}")
    return prompts
