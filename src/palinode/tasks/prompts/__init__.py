"""Forget what a text-to-image model draws from memory: one model a prompt, or one for all prompts in sequence."""

OFFERS = frozenset({"unconditional", "anchor", "trajectory", "neighbours", "text"})
