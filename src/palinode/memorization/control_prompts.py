"""Prompts beside those to be forgotten: what unlearning should leave alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ControlPrompts:
    """ordinary: drawn, to see what else changed; kept: those that an edit in closed form holds, never drawn; others:
    captions of memorized pictures, each with a picture that it copies."""

    ordinary: list[str]
    kept: list[str]
    others: list[str]
