"""Forget given images: SISS's setting. There is no anchor, and the model takes no condition."""

OFFERS = frozenset({"unconditional"})
REFERENCES = ("base", "oracle", "real")  # real: training images in the place of samples
