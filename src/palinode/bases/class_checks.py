"""What a class-conditional base must show before a class is unlearned from it: it draws the class it is asked for."""

import numpy as np
import torch

from palinode.classifiers.digits import Judge
from palinode.core.estimate import share
from palinode.core.images import to_model
from palinode.params.bases import ClassGate


@torch.inference_mode()
def measure(images: np.ndarray, classes: list[int], judge: Judge) -> dict:
    """images: uint8 [N, H, W, C], one for each class asked for.

    {"confusion": counts [asked class][class the judge sees], "recognised": by class, {value, lo, hi, n}, 95 % Wilson}.
    """
    predicted = judge(to_model(images)).argmax(1)
    counts = torch.zeros(judge.config["classes"], judge.config["classes"], dtype=torch.int64)
    ones = torch.ones(len(classes), dtype=torch.int64)
    counts.index_put_((torch.tensor(classes), predicted), ones, accumulate=True)
    recognised = [share(row[c], sum(row)) for c, row in enumerate(counts.tolist())]
    return {"confusion": counts.tolist(), "recognised": recognised}


def problem(measured: dict, limits: ClassGate) -> str | None:
    """Why the base is refused, or None."""
    for c, share_seen in enumerate(measured["recognised"]):
        if share_seen["value"] < limits.recognised:
            wanted = f"at least {limits.recognised:.0%} wanted"
            return f"the judge recognises {share_seen['value']:.1%} of {share_seen['n']} samples of class {c}, {wanted}"
    return None
