"""Metrics: quality, forgetting, integrity likelihood, with intervals and paired bootstrap replicates."""
