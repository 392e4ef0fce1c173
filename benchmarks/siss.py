"""One step of SISS (lambda 0.5) against one plain forward and backward pass of the same batch.

siss.py time CASE [quick]             the forms in turn, on the same batches: A B C D A B C D …
siss.py memory CASE FORM [quick]      one step of one form in a process of its own
"""

import json
import statistics
import sys
import time

import networks
import torch
from common import peak, ratio
from torch import Tensor

from palinode import methods
from palinode.core import seeds
from palinode.methods._mixture import log_ratio, weights
from palinode.methods.siss import SISS
from palinode.models.denoiser import Denoiser
from palinode.training.accumulation import Gradients
from palinode.training.batches import Batch

CASES = {  # network, or the base that has it; batch, repetitions
    "16px": ("tshirt", 64, 20),
    "28px": (networks.DIGITS_28, 64, 10),
    "28px-paper": ("tshirt-paper", 16, 10),
    "256px": (networks.CELEBAHQ, 2, 1),
}
REFRESH = 10  # a round of `refresh` is one step of two backward passes and nine of one


class TwoBackward(SISS):
    """SISS as the official code computes it: one forward pass, and a backward pass of every sample for each term."""

    def losses(self, model: Denoiser, batch: Batch) -> dict[str, Tensor]:
        gamma, sigma = (v[batch.t].view(-1, 1, 1, 1) for v in (model.schedule.gamma, model.schedule.sigma))
        m = torch.where((batch.u < self.lam).view(-1, 1, 1, 1), batch.a, batch.x) * gamma + sigma * batch.eps
        w_x, w_a = weights(log_ratio(m, batch.x, batch.a, gamma, sigma), self.lam)
        prediction = model.predict(m, batch.t)
        losses = {}
        for name, images, w in (("retain", batch.x, w_x), ("forget", batch.a, w_a)):
            error = ((m - gamma * images) / sigma - prediction).square().flatten(1).sum(1)
            losses[name] = (w.to(m) * error).sum() / len(m)
        return losses


FORMS = {
    "naive": methods.load("naive_deletion"),
    "siss": methods.load("siss", {"norm": 5.0}),
    "refresh": methods.load("siss", {"norm": 5.0, "refresh": REFRESH}),
    "two-backward": TwoBackward(norm=5.0),
}


class Bench:
    """One case: a network, its gradient buffers, and its batches.

    Their time steps are spread evenly over all repetitions.
    """

    def __init__(self, case: str, quick: bool):
        chosen = networks.setup()
        network, size, repetitions = CASES[case]
        config = networks.config_of(chosen, network) if isinstance(network, str) else network
        if quick:
            config = config | {"sample_size": min(config["sample_size"], 64)}
            size = min(size, 8)
            repetitions = 1
        self.size = size
        self.repetitions = repetitions
        self.model = networks.create(config)
        self.gradients = Gradients(list(self.model.net.parameters()))
        count = max(16, size)
        for method in FORMS.values():
            method.begin(self.model, {"seed": 1})
        self.retain, self.forget = networks.draw_pictures(config["sample_size"], config["in_channels"], count)

    def batch(self, repetition: int) -> Batch:
        """Batch number `repetition` of `repetitions`; every second image comes from the forget set."""
        size = self.size
        total = len(self.model.schedule)
        generator = seeds.generator("bench", repetition)
        x = self.retain[torch.randint(len(self.retain), (size,), generator=generator)]
        eps = torch.randn(x.shape, generator=generator)
        t = ((torch.arange(size) + (repetition + 0.5) / self.repetitions) * total / size).long()
        u = (torch.randperm(size, generator=generator) + 0.5) / size
        return Batch(x, self.forget.expand_as(x), t, eps, u, total, generator)

    def step(self, form: str, batch: Batch) -> float:
        """Seconds of a step without the optimiser, whose cost is the same for every form."""
        method = FORMS[form]
        start = time.perf_counter()
        self.gradients.zero()
        losses = method.losses(self.model, batch)
        self.gradients.backward(losses, 1.0)
        method.combine({name: self.gradients.flat[name] for name in losses})
        method.after_step()
        return time.perf_counter() - start

    def times(self) -> dict:
        seconds: dict[str, list[float]] = {form: [] for form in FORMS}
        nfe = {"forward": 0, "backward": 0}
        difference = 0.0
        if self.repetitions > 1:  # a single repetition is of a network whose steps outlast any preparation
            self.step("two-backward", self.batch(0))
        for repetition in range(self.repetitions):
            batch = self.batch(repetition)
            gradients = {}
            for form in FORMS:
                self.model.nfe = {"forward": 0, "backward": 0}
                seconds[form].append(self.step(form, batch))
                gradients[form] = {name: flat.clone() for name, flat in self.gradients.flat.items()}
                if form == "siss":
                    nfe = {way: nfe[way] + count for way, count in self.model.nfe.items()}
            exact = gradients["two-backward"]
            relative = [
                float((gradients["siss"][name] - exact[name]).norm() / exact[name].norm())
                for name in ("retain", "forget")
            ]
            difference = max(difference, *relative)
        once = ratio(seconds["siss"], seconds["naive"])
        twice = ratio(seconds["two-backward"], seconds["naive"])
        return {
            "siss/naive": once["median"],
            "range": once["range"],
            "refresh/naive": self.refresh_ratio(seconds),
            "two-backward/naive": twice["median"],
            "overlap": nfe["backward"] / nfe["forward"] - 1,
            "gradient difference": difference,
            "naive seconds": sorted(seconds["naive"])[len(seconds["naive"]) // 2],
        }

    def refresh_ratio(self, seconds: dict[str, list[float]]) -> float:
        """Of a round: one step that measures s, and the others; medians of each against those of a plain step."""
        naive = statistics.median(seconds["naive"])
        measuring = [value for step, value in enumerate(seconds["refresh"]) if step % REFRESH == 0]
        others = [value for step, value in enumerate(seconds["refresh"]) if step % REFRESH]
        if not others:  # of a network whose steps are long: the second one is measured alone
            others = [self.step("refresh", self.batch(0))]
        round_ = statistics.median(measuring) + (REFRESH - 1) * statistics.median(others)
        return round_ / REFRESH / naive


def main(what: str, case: str, *rest: str) -> None:
    bench = Bench(case, "quick" in rest)
    if what == "time":
        print(json.dumps(bench.times()))
        return
    before = peak()
    bench.step(rest[0], bench.batch(0))
    print(json.dumps({"peak": peak(), "step": peak() - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
