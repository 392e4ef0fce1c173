"""One step of a concept method against the passes its definition needs: concept_steps.py METHOD OPTIONS REPETITIONS.

The digit base's network with random weights, 16 random images a step. OPTIONS: the method's, as JSON. The passes are
those the model counted: a forward pass without a gradient, or a forward and backward pass, each timed beside the step;
and those of DoCo's discriminator, which its definition needs too: one for the generator, two for its own step.
"""

import json
import sys
import time

import networks
import torch
from common import ratio

from palinode import methods
from palinode.models import class_conditional
from palinode.training.concept_batches import ConceptBatches, ConceptData
from palinode.training.loop import Gradients

BATCH, POOL = 16, 64


def data(shape: tuple) -> ConceptData:
    """Random pictures: class 0 is the target, 6 the anchor."""
    pictures, states = torch.rand(3, POOL, *shape) * 2 - 1, torch.randn(POOL, 4, *shape)
    target, anchor = torch.full((POOL,), 1), torch.full((POOL,), 7)
    prompts, times = [None, *range(10)], torch.tensor([900, 600, 300, 0])
    return ConceptData(
        prompts, pictures[0], torch.randint(2, 10, (POOL,)), pictures[1], pictures[2], target, anchor,
        states, target, times,
    )  # fmt: skip


def main(name: str, options: str, repetitions: int) -> None:
    base = networks.setup().class_bases["mnist-class"]
    shape = {"sample_size": base.size, "in_channels": base.channels, "out_channels": base.channels}
    model = class_conditional.create(base.model | shape, base.scheduler, 10, 1)
    method = methods.load(name, json.loads(options))
    weights = torch.rand(sum(p.numel() for p in model.net.parameters()))
    method.begin(model, {"seed": 1, "saliency": weights, "fisher": weights})
    batches, gradients = ConceptBatches(data(model.shape), model, BATCH, 1, (1, "bench")), Gradients(model.trainable())

    def step(number: int) -> None:
        gradients.zero()
        (batch,) = batches(number)
        losses = method.losses(model, batch)
        gradients.backward(losses, 1.0)
        method.combine({loss: gradients.flat[loss] for loss in losses})
        method.after_step()

    x, t, c = torch.randn(BATCH, *model.shape), torch.full((BATCH,), 500), torch.zeros(BATCH, dtype=torch.int64)

    @torch.no_grad()
    def forward() -> None:
        model.predict(x, t, c)

    def both() -> None:
        gradients.zero()
        gradients.target("r")
        model.predict(x, t, c).square().sum().backward()

    def judged() -> None:
        adversary = method._adversary
        adversary.generator_loss(x.clone().requires_grad_()).backward()
        adversary.step(x, x)

    def seconds(function, *arguments) -> float:
        start = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - start

    for function, arguments in ((step, (0,)), (forward, ()), (both, ())):
        function(*arguments)
    before = dict(model.nfe)
    step(1)
    forwards, backwards = (round((model.nfe[way] - before[way]) / BATCH) for way in ("forward", "backward"))
    steps, needed = [], []
    for number in range(repetitions):
        needed.append((forwards - backwards) * seconds(forward) + backwards * seconds(both))
        needed[-1] += seconds(judged) if hasattr(method, "_adversary") else 0.0
        steps.append(seconds(step, number + 2))
    found = ratio(steps, needed)
    print(json.dumps({"method": name, "forwards": forwards, "backwards": backwards, "step/passes": found["median"],
                      "range": found["range"], "seconds": sum(steps) / len(steps)}))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
