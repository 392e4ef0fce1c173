"""Fréchet distance between two folders of images, by clean-fid's folder interface on a network of this project.

python tools/folder_fid.py FOLDER FOLDER [JUDGE]

JUDGE: a judge's folder (default: models/tshirt/judge), whose size and channels the images must have. clean-fid's own
Inception network is not offered: it would be downloaded. Images are not resized. Prints one line; outside the graph.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from palinode import params
from palinode.classifiers import storage
from palinode.core.errors import UserError
from palinode.core.work import set_up_torch
from palinode.data import sources
from palinode.metrics.features import JudgeBackbone
from palinode.pipeline.stage import run_tool

Shape = tuple[int, int, int]


def measure_distance(first: Path, second: Path, network: JudgeBackbone, shape: Shape) -> float:
    """clean-fid's Fréchet distance between the images below two folders, each of `shape` [H, W, C].

    UserError for a damaged image, one of another size, or fewer images than a covariance of the features needs.
    """
    from cleanfid.fid import compute_fid

    least = network.features(np.zeros((1, *shape), np.uint8)).shape[1] + 1
    for folder in (first, second):
        _check_folder(folder, shape, least)

    def extract(batch: torch.Tensor) -> torch.Tensor:
        """clean-fid gives RGB of any image, float [B, 3, H, W] in [0, 255]."""
        images = batch.permute(0, 2, 3, 1).round().byte().cpu().numpy()[..., : shape[2]]
        return torch.from_numpy(network.features(images))

    distance = compute_fid(
        str(first),
        str(second),
        custom_feat_extractor=extract,
        custom_image_tranform=choose_conversion(shape),
        custom_fn_resize=np.asarray,
        num_workers=0,
        device=network.device,
        verbose=False,
        use_dataparallel=False,
    )
    return float(distance)


def _check_folder(folder: Path, shape: Shape, least: int) -> None:
    from cleanfid.utils import EXTENSIONS

    sources.image_files(folder)  # names one that is missing or empty
    files = [file for file in folder.rglob("*") if file.suffix[1:] in EXTENSIONS]  # what clean-fid reads
    for file in files:
        sources.read_image(file, shape)
    if len(files) < least:
        raise UserError(f"{folder} holds {len(files)} images, the features of this network need {least}")


def choose_conversion(shape: Shape) -> Callable[[np.ndarray], np.ndarray]:
    """For a network of grey images: what reads them as `sources.read_image` does, in three equal channels."""
    from PIL import Image

    def to_grey(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))

    return to_grey if shape[2] == 1 else np.asarray


def run(first: str, second: str, folder: str = "models/tshirt/judge") -> None:
    loaded = params.load()
    device = set_up_torch(loaded.runtime.device, loaded.threads.cells, loaded.runtime.deterministic)
    judge = storage.load(Path(folder))
    size = judge.config["size"]
    shape = (size, size, judge.config["channels"])
    distance = measure_distance(Path(first), Path(second), JudgeBackbone(judge.to(device)), shape)
    print(f"Fréchet distance of {first} and {second} on the features of {folder}: {distance:.4f}")


if __name__ == "__main__":
    run_tool(run)
