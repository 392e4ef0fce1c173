"""Score pictures of a model against other pictures: how many are copies of what was forgotten, KID, FID, and drift.

python examples/score_samples.py SAMPLES OTHERS [--forget PICTURES] [--judge FOLDER], for example
python examples/score_samples.py samples.npy data/mnist/reference.npy --forget data/fashion/tshirt.npy

Each is a folder of image files, or uint8 [N, H, W, C] in a .npy file; all have one size. OTHERS are real pictures that
no model saw, or samples of another model. Drift compares picture i of the one with picture i of the other, so it means
something only where both come from the same noise. A hit is a sample that is nearer to a picture to forget than 0.87
times the distance from there to OTHERS, as in the MNIST experiment of SISS. Where OTHERS hold copies themselves, name
the distance: --hit-distance. Brackets hold 95 % intervals.
"""

import argparse
from pathlib import Path

import numpy as np

from palinode.core import estimate
from palinode.core.errors import UserError
from palinode.core.estimate import Metric
from palinode.data import sources
from palinode.metrics import features, forgetting, integrity, quality

HIT_RATIO = 0.87
REPLICATES = 200
KID_SUBSET = 1000


def read(path: Path, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """Pictures of one shape [H, W, C], of that of the first where none is named; uint8 [N, H, W, C]."""
    if shape is None:
        shape = find_shape(path)
    return np.stack(list(sources.read(path, shape)[1]))


def find_shape(path: Path) -> tuple[int, int, int]:
    """The shape [H, W, C] of the first picture; grey where the file says so."""
    from PIL import Image

    if path.suffix == ".npy":
        height, width, channels = np.load(path, mmap_mode="r").shape[1:]
        return height, width, channels
    with Image.open(sources.image_files(path)[0]) as image:
        return image.height, image.width, 1 if image.mode in ("1", "L") else 3


def score(
    samples: np.ndarray,
    others: np.ndarray,
    forget: np.ndarray | None = None,
    judge: Path | None = None,
    hit_distance: float | None = None,
) -> dict[str, Metric]:
    """Metrics by name; one that cannot be had is absent, with the reason. judge: folder of an evaluation classifier."""
    scores: dict[str, Metric] = {}
    if forget is not None:
        if hit_distance is None:
            hit_distance = HIT_RATIO * forgetting.measure_distances(others, forget).min()
        scores["forget rate"] = estimate.from_rate(forgetting.find_hits(samples, forget, hit_distance))
    networks, reasons = features.load_available(judge, "no classifier was named: --judge FOLDER")
    for name, network in networks.items():
        ours = network.features(samples[: network.limit])
        theirs = network.features(others[: network.limit])
        scores[f"KID, {name}"] = quality.kid(ours, theirs, KID_SUBSET, REPLICATES)
        scores[f"FID, {name}"] = quality.fid(ours, theirs, REPLICATES)
    for name, reason in reasons.items():
        scores[f"KID, {name}"] = scores[f"FID, {name}"] = estimate.absent(reason)
    if len(samples) == len(others):
        distances = integrity.measure_pairs(integrity.ssim(), samples, others)
        scores["drift, 1 - SSIM"] = integrity.estimate_drift(distances, REPLICATES)
    else:
        scores["drift, 1 - SSIM"] = estimate.absent(f"{len(samples)} and {len(others)} pictures are no pairs")
    return scores


def format_score(metric: Metric) -> str:
    if metric.value is None:
        return f"absent: {metric.reason}"
    interval = "" if metric.lo is None else f"  [{metric.lo:.4f}, {metric.hi:.4f}]"
    return f"{metric.value:8.4f}{interval}  of {metric.n}"


def main(options: argparse.Namespace) -> None:
    samples = read(options.samples)
    others = read(options.others, samples.shape[1:])
    forget = None if options.forget is None else read(options.forget, samples.shape[1:])
    for name, metric in score(samples, others, forget, options.judge, options.hit_distance).items():
        print(f"{name:26}{format_score(metric)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("others", type=Path)
    parser.add_argument("--forget", type=Path, help="pictures that should not be among the samples")
    parser.add_argument("--hit-distance", type=float, help="L2 over pixels in [0, 1]; a nearer sample is a copy")
    parser.add_argument("--judge", type=Path, help="folder of an evaluation classifier, such as models/tshirt/judge")
    try:
        main(parser.parse_args())
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
