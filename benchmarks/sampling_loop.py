"""The sampling loop against a bare loop of as many forward passes: sampling_loop.py CHUNK STEPS REPETITIONS."""

import json
import statistics
import sys
import time
from collections.abc import Callable

import networks
import torch
from common import ratio

from palinode.models.schedule import leading_timesteps
from palinode.sampling import unprompted


def main(chunk: int, steps: int, repetitions: int) -> None:
    model = networks.create(networks.config_of(networks.setup(), "tshirt"))
    x = torch.randn(chunk, *model.shape)
    labels = [torch.full((chunk,), t) for t in leading_timesteps(len(model.schedule), steps)]

    @torch.inference_mode()
    def bare() -> None:
        for t in labels:
            model.net(x, t)

    def loop() -> None:
        unprompted.sample_chunk(model, (0, "bench"), 0, chunk, "ddpm", steps)

    def seconds(function: Callable[[], None]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    bare()
    times = [(seconds(bare), seconds(loop)) for _ in range(repetitions)]
    inside = ratio(*zip(*times, strict=True))
    milliseconds = 1000 * statistics.median(t for _, t in times) / chunk
    print(json.dumps({"inside": inside["median"], "range": inside["range"], "ms an image": milliseconds}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
