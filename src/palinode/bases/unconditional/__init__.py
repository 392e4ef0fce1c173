"""Pixel models without conditions: trained on X, the oracle on X without the repeated images."""
