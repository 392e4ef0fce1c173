"""Randomness without global state: every draw has a name, and the name is its seed."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*parts: str | int) -> int:
    """A 63-bit seed from the SHA-256 of the parts, the same on every platform."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: str | int) -> "torch.Generator":
    """A torch CPU generator seeded by `derive`; CPU, so that the stream does not depend on the device."""
    import torch

    return torch.Generator().manual_seed(derive(*parts))
