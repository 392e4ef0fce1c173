"""One step of SISS (lambda 0.5) against one plain forward and backward pass of the same batch.

siss.py time CASE [quick]             the three forms in turn, on the same batches: A B C A B C …
siss.py memory CASE FORM [quick]      one step of one form in a process of its own
"""

import json
import sys
import time

import networks
import torch
from common import peak, ratio

from palinode import methods
from palinode.core import seeds
from palinode.methods.siss import SISS, log_ratio, weights
from palinode.training.batches import Batch
from palinode.training.loop import Gradients

CASES = {  # network, or the task that has it; batch, repetitions
    "16px": ("tshirt", 64, 15),
    "28px": (networks.DIGITS_28, 64, 9),
    "28px-paper": ("tshirt-paper", 16, 5),
    "256px": (networks.CELEBAHQ, 2, 1),
}


class TwoBackward(SISS):
    """SISS as the official code computes it: one forward pass, and a backward pass of every sample for each term."""

    def losses(self, model, batch):
        gamma, sigma = (v[batch.t].view(-1, 1, 1, 1) for v in (model.schedule.gamma, model.schedule.sigma))
        m = torch.where((batch.u < self.lam).view(-1, 1, 1, 1), batch.a, batch.x) * gamma + sigma * batch.eps
        w_x, w_a = weights(log_ratio(m, batch.x, batch.a, gamma, sigma), self.lam)
        prediction = model.predict(m, batch.t)
        return {
            name: (w.to(m) * ((m - gamma * source) / sigma - prediction).square().flatten(1).sum(1)).sum() / len(m)
            for name, source, w in (("x", batch.x, w_x), ("a", batch.a, w_a))
        }


FORMS = {
    "naive": methods.load("naive_deletion"),
    "siss": methods.load("siss", {"lam": 0.5}),
    "two-backward": TwoBackward(lam=0.5),
}


class Bench:
    """One case: a network, its gradient buffers, and batches whose time steps are spread evenly over all
    repetitions."""

    def __init__(self, case: str, quick: bool):
        chosen = networks.setup()
        config, size, repetitions = CASES[case]
        config = networks.of_task(chosen, config) if isinstance(config, str) else config
        if quick:
            config = config | {"sample_size": min(config["sample_size"], 64)}
            size, repetitions = min(size, 8), 1
        self.size, self.repetitions = size, repetitions
        self.model = networks.create(config)
        self.gradients = Gradients(list(self.model.net.parameters()))
        self.retain, self.forget = networks.pictures(config["sample_size"], config["in_channels"], max(16, size))

    def batch(self, repetition: int) -> Batch:
        """Batch number `repetition` of `repetitions`; every second image comes from the forget set."""
        generator, size, total = seeds.generator("bench", repetition), self.size, len(self.model.schedule)
        x = self.retain[torch.randint(len(self.retain), (size,), generator=generator)]
        eps = torch.randn(x.shape, generator=generator)
        t = ((torch.arange(size) + (repetition + 0.5) / self.repetitions) * total / size).long()
        pick = (torch.randperm(size, generator=generator) + 0.5) / size
        return Batch(x, self.forget.expand_as(x), t, eps, pick, total, generator)

    def step(self, form: str, batch: Batch) -> float:
        """Seconds of a step without the optimiser, whose cost is the same for every form."""
        start, method = time.perf_counter(), FORMS[form]
        self.gradients.zero()
        losses = method.losses(self.model, batch)
        self.gradients.backward(losses, 1.0)
        method.combine({name: self.gradients.flat[name] for name in losses})
        return time.perf_counter() - start

    def times(self) -> dict:
        seconds, passes, difference = {form: [] for form in FORMS}, {"forward": 0, "backward": 0}, 0.0
        if self.repetitions > 1:  # a single repetition is of a network whose steps outlast any preparation
            self.step("two-backward", self.batch(0))
        for repetition in range(self.repetitions):
            batch, found = self.batch(repetition), {}
            for form in FORMS:
                self.model.nfe = {"forward": 0, "backward": 0}
                seconds[form].append(self.step(form, batch))
                found[form] = {name: flat.clone() for name, flat in self.gradients.flat.items()}
                if form == "siss":
                    passes = {way: passes[way] + count for way, count in self.model.nfe.items()}
            exact = found["two-backward"]
            far = [float((found["siss"][name] - exact[name]).norm() / exact[name].norm()) for name in exact]
            difference = max(difference, *far)
        one, both = (ratio(seconds[form], seconds["naive"]) for form in ("siss", "two-backward"))
        return {
            "siss/naive": one["median"], "range": one["range"], "two-backward/naive": both["median"],
            "overlap": passes["backward"] / passes["forward"] - 1, "gradient difference": difference,
            "naive seconds": sorted(seconds["naive"])[len(seconds["naive"]) // 2],
        }  # fmt: skip


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
