"""What a class-conditional base must show before a class is unlearned from it: it draws the class it is asked for."""

import numpy as np
import torch

from palinode.judge import Judge
from palinode.metrics.record import share
from palinode.models import to_model


@torch.inference_mode()
def measure(images: np.ndarray, asked: list[int], judge: Judge) -> dict:
    """images: uint8 [N, H, W, C], one for each class asked for.

    {"confusion": counts [asked class][class the judge sees], "recognised": by class, {value, lo, hi, n}, 95 % Wilson}.
    """
    seen = judge(to_model(images)).argmax(1)
    counts = torch.zeros(judge.config["classes"], judge.config["classes"], dtype=torch.int64)
    counts.index_put_((torch.tensor(asked), seen), torch.ones(len(asked), dtype=torch.int64), accumulate=True)
    recognised = [share(row[c], sum(row)) for c, row in enumerate(counts.tolist())]
    return {"confusion": counts.tolist(), "recognised": recognised}


def problem(found: dict, limits) -> str | None:
    """Why the base is refused, or None. limits.recognised: share of each class, at least."""
    for c, seen in enumerate(found["recognised"]):
        if seen["value"] < limits.recognised:
            wanted = f"at least {limits.recognised:.0%} wanted"
            return f"the judge recognises {seen['value']:.1%} of {seen['n']} samples of class {c}, {wanted}"
    return None
