"""Samplers, and pairs of samples: image i starts from the same noise in every model."""
