"""Made-up gates, judges and training logs of two conditional bases, as their stages would write them."""

from pathlib import Path

import numpy as np

from palinode.contact import sheet, write_png
from palinode.data.captions import STYLES, TIERS
from palinode.io import write_json
from palinode.pretraining import Outcome

BASES = [["digits", "class"], ["stickers", "text"]]


def share(hits: int, n: int) -> dict:
    return {"value": hits / n, "lo": max(0, hits / n - 0.02), "hi": min(1, hits / n + 0.02), "n": n}


def write(root: Path) -> None:
    """Both bases under `root`/models, each with one oracle."""
    rng = np.random.default_rng(0)
    for name, size, channels in (("digits", 16, 1), ("stickers", 32, 3)):
        folder = root / "models" / name
        pictures = rng.integers(0, 255, (20, 4, size, size, channels), np.uint8)
        losses = [{"step": step, "loss_x": 300 / (step + 1), "norm_x": 1.0} for step in range(0, 100, 5)]
        phases = ("autoencoder", "contrast", "denoiser") if name == "stickers" else ("denoiser",)
        for role in ("base", "without-one"):
            write_json(folder / role / "model_index.json", {})
            Outcome(None, dict.fromkeys(phases, losses), pictures).write_progress(folder / "training" / role)
        for picture in ("samples", "concepts", "tiers", "memorized"):
            write_png(folder / f"gate/{picture}.png", sheet(pictures.reshape(-1, size, size, channels)))
    write_json(root / "models/digits/judge/config.json", {"test_accuracy": 0.98, "test_images": 1000})
    counts = np.full((3, 3), 1) + 17 * np.eye(3, dtype=int)
    write_json(root / "models/digits/gate/gate.json", {
        "recognised": [share(18, 20)] * 3, "confusion": counts.tolist(), "limits": {"recognised": 0.9, "each": 20},
    })  # fmt: skip
    test = dict.fromkeys(("concept", "style", "concept_confidence", "style_confidence"), 0.995)
    measured = {"test": test | {"images": 4096}, "unseen": {"none": 0.7, "style": 0.9}}
    write_json(root / "models/stickers/judge/config.json", measured)
    drawn = {"concept": share(97, 100), "style": share(90, 100)}
    groups = dict.fromkeys(("seen", "unseen", *TIERS), drawn)
    groups |= {name: {"copy": share(80, 100)} for name in ("verbatim", "template", "control", "ordinary")}
    write_json(root / "models/stickers/gate/gate.json", {
        "groups": groups, "alignment": share(95, 100) | {"among": 16}, "limits": {"concept": 0.95, "guidance": 3.0},
        "confusion": {"style": [[1] * (len(STYLES) + 1)] * len(STYLES), "concept": [["cat", "dog", 2]] * 14},
    })  # fmt: skip


