"""How often a model still draws a forget image: p of the SISS paper, among enough samples to tell 4e-4 from none.

Trajectories that are far from every forget image half way are given up and count as none, so p is a lower bound.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from palinode.core import estimate
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.errors import Absent
from palinode.core.images import to_model
from palinode.core.io import absence, atomic, read_json, write_arrays, write_json
from palinode.core.work import Work
from palinode.data.splits import read_subject
from palinode.metrics import forgetting
from palinode.models import unconditional
from palinode.params.stage_settings import CountImages
from palinode.sampling.early import sample_near
from palinode.sampling.paired import chunks
from palinode.tasks.subjects import check_subject

SHOWN = 64  # finished samples on the contact sheet


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    """row, seed: `reference`, and `base` or `oracle`, for a model that is not unlearned."""
    from tqdm import tqdm

    settings = work.settings(CountImages)
    folder = work.input(f"{task}/{seed}") if row == "reference" else work.input("model")
    data = work.input(f"tasks/{task}")
    metadata = read_json(data / "metadata.json")
    number = check_subject(subject, len(metadata["subjects"]))
    if reason := absence(folder):
        raise Absent(reason)
    _, forget = read_subject(data, number, metadata)
    hit_distance = metadata["subjects"][number]["hit_distance"]
    model = unconditional.load(folder, work.device, settings.precision)
    near = find_near(forget, settings.far * hit_distance, work.device)
    key = (settings.root_seed, f"{settings.name} count")
    hits = np.zeros(settings.count, bool)
    kept = 0
    pictures: list[np.ndarray] = []
    with work.scratch() as scratch:
        for first, size in tqdm(chunks(settings.count, settings.chunk), work.name, mininterval=5):

            def sample(first: int = first, size: int = size) -> dict[str, np.ndarray]:
                images, numbers = sample_near(model, key, first, size, settings.steps, settings.look, near)
                return {"images": images, "numbers": numbers}

            part = scratch.cached_arrays(f"chunk-{first}", sample)
            kept += len(part["numbers"])
            hit = forgetting.find_hits(part["images"], forget, hit_distance)
            hits[part["numbers"][hit]] = True
            pictures.append(part["images"][hit])
        rate = estimate.from_rate(hits)
        entries, replicates = estimate.pack({"forget_rate_counted": rate})
        with atomic(work.outputs[0]) as out:
            write_json(out / "metrics.json", entries)
            write_arrays(out / "replicates.npz", replicates)
            write_json(out / "count.json", {"hits": int(hits.sum()), "finished": kept} | settings.model_dump())
            shown = np.concatenate(pictures)[:SHOWN]
            if len(shown):
                write_png(out / "hits.png", sheet(shown), scale=2)
    print(f"{work.name}: {hits.sum()} of {len(hits)} samples, {kept} finished")


def find_near(forget: np.ndarray, distance: float, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Which predictions of x_0 [N, C, H, W] are within an L2 distance, in [0, 1] pixel space, of a forget image."""
    targets = to_model(np.array(forget)).flatten(1).to(device)

    def near(x: Tensor) -> Tensor:
        return torch.cdist(x.clamp(-1, 1).flatten(1), targets).amin(1) / 2 < distance

    return near
