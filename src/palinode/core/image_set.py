"""Images that are read by row numbers: an array, or something that stands for one."""

from typing import Any, Protocol

import numpy as np


class ImageSet(Protocol):
    """uint8 images [N, H, W, C], read by row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> np.ndarray: ...
