"""Files, seeds, resuming, and a number with its interval: what every part of the package uses."""
