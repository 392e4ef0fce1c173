"""What is drawn and logged while a conditional base is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palinode.core.io import read_array, write_array, write_csv
from palinode.core.scratch import Scratch
from palinode.models.denoiser import Denoiser


class Watch:
    """Draws with the unfinished model whenever the training loop says so; `drawn`: uint8 [times, n, H, W, C]."""

    def __init__(self, preview: Callable[[], np.ndarray], scratch: Scratch):
        self.preview = preview
        self.scratch = scratch

    def __call__(self, step: int) -> None:
        write_array(self.scratch.folder / f"drawn-{step:08d}.npy", self.preview())

    @property
    def drawn(self) -> np.ndarray:
        files = sorted(self.scratch.folder.glob("drawn-*.npy"))
        return np.stack([read_array(path) for path in files])


@dataclass
class Outcome:
    """A trained conditional model, what `train` logged of each phase, and what a `Watch` drew on the way."""

    model: Denoiser
    history: dict[str, list[dict]]
    drawn: np.ndarray

    def write_progress(self, folder: Path) -> None:
        """<phase>.csv with the losses, and epochs.npy: a row of pictures for every twentieth of the training."""
        for phase, history in self.history.items():
            write_csv(folder / f"{phase}.csv", history)
        write_array(folder / "epochs.npy", self.drawn)
