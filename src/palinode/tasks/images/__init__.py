"""Forget given images: SISS's setting. There is no anchor, and the model takes no condition."""

OFFERS = frozenset({"unconditional", "neighbours"})
