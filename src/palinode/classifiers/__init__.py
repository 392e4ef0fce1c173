"""Evaluation classifiers, called judges: they score samples, and no method ever trains on them."""
