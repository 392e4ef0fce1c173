"""Made-up checks, judges and training logs of three bases and their oracles, as the stages would write them."""

from pathlib import Path

import numpy as np

from palinode.core.io import write_array, write_csv, write_json
from palinode.data.captions import STYLES
from palinode.params.report_settings import ReportBase

KINDS = {"digits": "class", "digits-without-1": "class", "stickers": "text", "stickers-without-cat": "text"}
KINDS |= {"shirts": "unconditional", "shirts-without-repeated": "unconditional"}
BASES = [ReportBase(name=name, kind=kind) for name, kind in KINDS.items()]
PHASES = {"text": ("autoencoder", "contrastive", "denoiser")}
SHAPES = {"text": (32, 32, 3)}
PROMPT_SETS = ("training prompts", "new attributes", "new templates", "synonyms", "compositions")


def share(hits: int, n: int) -> dict:
    return {"value": hits / n, "lo": max(0, hits / n - 0.02), "hi": min(1, hits / n + 0.02), "n": n}


def write(root: Path) -> None:
    """All bases under `root`/models."""
    rng = np.random.default_rng(0)
    losses = [{"step": step, "loss_retain": 300 / (step + 1), "norm_retain": 1.0} for step in range(0, 100, 5)]
    for name, kind in KINDS.items():
        folder = root / "models" / name
        write_json(folder / "model/model_index.json", {})
        for phase in PHASES.get(kind, ("denoiser",)):
            write_csv(folder / f"training/{phase}.csv", losses)
        if kind != "unconditional":
            shape = SHAPES.get(kind, (16, 16, 1))
            write_array(folder / "training/epochs.npy", rng.integers(0, 255, (20, 4, *shape), np.uint8))
    write_digits(root / "models/digits", rng)
    write_stickers(root / "models/stickers", rng)
    write_shirts(root / "models/shirts")


def write_digits(folder: Path, rng: np.random.Generator) -> None:
    counts = np.full((3, 3), 1) + 17 * np.eye(3, dtype=int)
    gate = {"recognised": [share(18, 20)] * 3, "confusion": counts.tolist(), "limits": {"recognised": 0.9, "each": 20}}
    write_json(folder / "judge/config.json", {"test_accuracy": 0.98, "test_images": 1000})
    write_json(folder / "gate/gate.json", gate)
    write_array(folder / "gate/samples.npy", rng.integers(0, 255, (3, 16, 16, 16, 1), np.uint8))


def write_stickers(folder: Path, rng: np.random.Generator) -> None:
    test = dict.fromkeys(("concept", "style", "concept_confidence", "style_confidence"), 0.995)
    judge = {"test": test | {"images": 4096}, "unseen": {"none": 0.7, "style": 0.9}}
    drawn = {"concept": share(97, 100), "style": share(90, 100)}
    groups = dict.fromkeys(("seen", "unseen", *PROMPT_SETS), drawn)
    groups |= {name: {"copy": share(80, 100)} for name in ("verbatim", "template", "partial", "control", "ordinary")}
    confusion = {"style": [[1] * (len(STYLES) + 1)] * len(STYLES), "concept": [["cat", "dog", 2]] * 14}
    gate = {
        "groups": groups,
        "alignment": share(95, 100) | {"among": 16},
        "limits": {"concept": 0.95, "guidance": 3.0},
        "confusion": confusion,
    }
    write_json(folder / "judge/config.json", judge)
    write_json(folder / "gate/gate.json", gate)
    for sheet in ("concepts", "prompt-sets", "memorized"):
        write_array(folder / f"gate/{sheet}.npy", rng.integers(0, 255, (2, 4, 32, 32, 3), np.uint8))


def write_shirts(folder: Path) -> None:
    gate = {
        "samples": 4096,
        "hits": 41,
        "hit_rate": 0.01,
        "fid_judge": 24.1,
        "fid_judge_real": 1.73,
        "inception_score": 9.1,
        "inception_score_real": 9.45,
        "limits": {"samples": 4096, "hit_rate": [0.003, 0.03]},
    }
    write_json(folder / "judge/config.json", {"test_accuracy": 0.98, "test_images": 1000})
    write_json(folder / "gate/gate.json", gate)
