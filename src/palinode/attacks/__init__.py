"""Attacks on models that should have forgotten."""
