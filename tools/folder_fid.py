"""Fréchet distance between two folders of images, by clean-fid's folder interface on a network of this project.

python tools/folder_fid.py FOLDER FOLDER [JUDGE]

JUDGE: a judge's folder (default: models/tshirt/judge), whose size and channels the images must have. clean-fid's own
Inception network is not offered: it would be downloaded. Images are not resized. Prints one line; outside the graph.
"""

from pathlib import Path

import numpy as np
import torch

from palinode.classifiers import storage
from palinode.core.errors import UserError
from palinode.data import sources
from palinode.metrics.features import JudgeBackbone
from palinode.pipeline.stage import device, main


def distance(first: Path, second: Path, network: JudgeBackbone, shape: tuple[int, int, int]) -> float:
    """clean-fid's Fréchet distance between the images below two folders, each of `shape` [H, W, C].

    UserError for a damaged image, one of another size, or fewer images than a covariance of the features needs.
    """
    from cleanfid.fid import compute_fid
    from cleanfid.utils import EXTENSIONS

    least = network.features(np.zeros((1, *shape), np.uint8)).shape[1] + 1
    for folder in (first, second):
        sources.image_files(folder)  # names one that is missing or empty
        files = [file for file in folder.rglob("*") if file.suffix[1:] in EXTENSIONS]  # what clean-fid reads
        for file in files:
            sources.read_image(file, shape)
        if len(files) < least:
            raise UserError(f"{folder} holds {len(files)} images, the features of this network need {least}")

    def features(batch: torch.Tensor) -> torch.Tensor:
        """clean-fid gives RGB of any image, float [B, 3, H, W] in [0, 255]."""
        images = batch.permute(0, 2, 3, 1).round().byte().cpu().numpy()[..., : shape[2]]
        return torch.from_numpy(network.features(images))

    return float(compute_fid(
        str(first), str(second), custom_feat_extractor=features, custom_image_tranform=converted(shape),
        custom_fn_resize=np.asarray, num_workers=0, device=network.device, verbose=False, use_dataparallel=False,
    ))  # fmt: skip


def converted(shape: tuple[int, int, int]):
    """For a network of grey images: what reads them as `sources.read_image` does, in three equal channels."""
    from PIL import Image

    def grey(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))

    return grey if shape[2] == 1 else np.asarray


def run(first: str, second: str, folder: str = "models/tshirt/judge") -> None:
    where, network = device(), storage.load(Path(folder))
    size, channels = network.config["size"], network.config["channels"]
    value = distance(Path(first), Path(second), JudgeBackbone(network.to(where)), (size, size, channels))
    print(f"Fréchet distance of {first} and {second} on the features of {folder}: {value:.4f}")


if __name__ == "__main__":
    main(run)
