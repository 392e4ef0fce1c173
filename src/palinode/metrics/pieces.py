"""Metrics that are computed together: each name stands once, whether its value exists or not."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from palinode.core import estimate
from palinode.core.errors import Absent
from palinode.core.estimate import Metric
from palinode.core.scratch import Scratch

Metrics = dict[str, Metric]


def measure(names: Sequence[str], compute: Callable[[], Sequence[Metric]]) -> Metrics:
    """{name: metric}, with the metrics that `compute` returns in the order of the names.

    All are absent, with the reason, where `compute` raises Absent.
    """
    try:
        metrics = compute()
    except Absent as error:
        return {name: estimate.absent(str(error)) for name in names}
    return dict(zip(names, metrics, strict=True))


def keep(scratch: Scratch | None, name: str, compute: Callable[[], Metrics]) -> Metrics:
    """What `compute` returns; taken from `scratch` under `name` where an interrupted run has computed it already."""
    if scratch is None:
        return compute()

    @cache
    def packed() -> tuple[dict, dict]:
        return estimate.pack(compute())

    # An interruption between the two leaves the arrays alone; computed again they are the same.
    replicates = scratch.cached_arrays(name, lambda: packed()[1])
    entries = scratch.cached_json(name, lambda: packed()[0])
    return estimate.unpack(entries, replicates)


def measure_cost(cost: Mapping[str, int] | str) -> Metrics:
    """nfe_forward, nfe_backward: samples that unlearning sent through the network, each way.

    cost: cost.json {"forward": ..., "backward": ...}, or the reason why there is none.
    """

    def compute() -> list[Metric]:
        if isinstance(cost, str):
            raise Absent(cost)
        return [estimate.exact(cost["forward"]), estimate.exact(cost["backward"])]

    return measure(("nfe_forward", "nfe_backward"), compute)
