"""Forget a thing, a style or a class of a conditional model; an anchor takes its place."""

OFFERS = frozenset({"anchor", "trajectory", "saliency", "fisher"})  # of a text-to-image base also "text"
