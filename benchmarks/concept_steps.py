"""One step of a concept method against the evaluations it needs: concept_steps.py METHOD OPTIONS REPETITIONS.

The digit base's network with random weights, 16 random images a step. OPTIONS: the method's, as JSON. The network
evaluations are those the model counted, each timed beside the step: a forward pass without a gradient, or a forward and
backward pass. DoCo's discriminator is part of its definition too: one for the generator, two for its own step.
"""

import json
import sys
import time
from collections.abc import Callable

import networks
import torch
from common import ratio

from palinode import methods
from palinode.methods import Method
from palinode.models import class_conditional
from palinode.models.class_conditional import ClassConditional
from palinode.params.bases import ClassBase
from palinode.training.accumulation import Gradients
from palinode.training.concept_batches import ConceptBatches, ConceptData

BATCH = 16
POOL = 64


def make_data(shape: tuple[int, int, int]) -> ConceptData:
    """Random pictures: class 0 is the target, 6 the anchor."""
    pictures = torch.rand(3, POOL, *shape) * 2 - 1
    target = torch.full((POOL,), 1)
    return ConceptData(
        prompts=[None, *range(10)],
        retain=pictures[0],
        retain_prompt=torch.randint(2, 10, (POOL,)),
        forget=pictures[1],
        forget_prompt=target,
        anchor=pictures[2],
        anchor_prompt=torch.full((POOL,), 7),
    )


def create_model() -> ClassConditional:
    base = networks.setup().base_models["mnist-class"]
    assert isinstance(base, ClassBase)
    shape = {"sample_size": base.size, "in_channels": base.channels, "out_channels": base.channels}
    return class_conditional.create(base.model | shape, base.scheduler, 10, 1)


class Bench:
    """A method on the network, and each part of its cost by itself."""

    def __init__(self, model: ClassConditional, method: Method):
        self.model = model
        self.method = method
        self.batches = ConceptBatches(make_data(model.shape), model, BATCH, 1, (1, "bench"))
        self.gradients = Gradients(model.trainable())
        self.x = torch.randn(BATCH, *model.shape)
        self.t = torch.full((BATCH,), 500)
        self.c = torch.zeros(BATCH, dtype=torch.int64)

    def step(self, number: int) -> None:
        self.gradients.zero()
        (batch,) = self.batches(number)
        losses = self.method.losses(self.model, batch)
        self.gradients.backward(losses, 1.0)
        self.method.combine({loss: self.gradients.flat[loss] for loss in losses})
        self.method.after_step()

    @torch.no_grad()
    def forward(self) -> None:
        self.model.predict(self.x, self.t, self.c)

    def forward_and_backward(self) -> None:
        self.gradients.zero()
        self.gradients.target("retain")
        self.model.predict(self.x, self.t, self.c).square().sum().backward()

    def discriminate(self) -> None:
        adversary = self.method._adversary
        adversary.generator_loss(self.x.clone().requires_grad_()).backward()
        adversary.step(self.x, self.x)


def measure_seconds(function: Callable, *arguments: int) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main(name: str, options: str, repetitions: int) -> None:
    model = create_model()
    method = methods.load(name, json.loads(options) | ({"warmup": 0} if name == "doco" else {}))
    weights = torch.rand(sum(p.numel() for p in model.net.parameters()))
    method.begin(model, {"seed": 1, "saliency": weights, "fisher": weights})
    bench = Bench(model, method)

    bench.step(0)
    bench.forward()
    bench.forward_and_backward()
    before = dict(model.nfe)
    bench.step(1)
    forwards, backwards = (round((model.nfe[way] - before[way]) / BATCH) for way in ("forward", "backward"))
    steps = []
    needed = []
    for number in range(repetitions):
        seconds = (forwards - backwards) * measure_seconds(bench.forward)
        seconds += backwards * measure_seconds(bench.forward_and_backward)
        if hasattr(method, "_adversary"):
            seconds += measure_seconds(bench.discriminate)
        needed.append(seconds)
        steps.append(measure_seconds(bench.step, number + 2))
    compared = ratio(steps, needed)
    record = {
        "method": name,
        "forwards": forwards,
        "backwards": backwards,
        "step/passes": compared["median"],
        "range": compared["range"],
        "seconds": sum(steps) / len(steps),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
