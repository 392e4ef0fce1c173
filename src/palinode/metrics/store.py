"""The finished pieces of an evaluation, kept until the whole cell is done, so that a killed run continues."""

from pathlib import Path

import numpy as np

from palinode.io import read_json, write_arrays, write_json
from palinode.metrics.record import Metric, pack, unpack
from palinode.scratch import Checkpoint


class Store:
    """One JSON and one .npz file per piece in `folder`, and the state of a long one; without a folder nothing is kept.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def finished(self, piece: str) -> dict[str, Metric] | None:
        """What an interrupted run computed, or None."""
        if self.folder is None or not (self.folder / f"{piece}.json").exists():
            return None
        with np.load(self.folder / f"{piece}.npz") as replicates:
            return unpack(read_json(self.folder / f"{piece}.json"), dict(replicates))

    def keep(self, piece: str, metrics: dict[str, Metric]) -> None:
        """Write one piece; the JSON comes last, so that it marks the piece as complete."""
        if self.folder is None:
            return
        entries, replicates = pack(metrics)
        write_arrays(self.folder / f"{piece}.npz", replicates)
        write_json(self.folder / f"{piece}.json", entries)

    def checkpoint(self, piece: str) -> Checkpoint:
        """The place for the state of a piece that takes long."""
        return Checkpoint(self.folder and self.folder / f"{piece}.pt")
