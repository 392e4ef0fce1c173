"""The one training loop, and what its steps see."""
