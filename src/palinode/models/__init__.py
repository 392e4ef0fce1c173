"""Diffusion models: one protocol, three kinds, and their folders."""
