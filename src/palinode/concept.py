"""Concept unlearning: what a training step sees of the target, of the anchor that takes its place, and of the rest."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.io import atomic, read_json, write_arrays, write_json
from palinode.models import Diffuser
from palinode.training import Batch, draw_noise


@dataclass
class ConceptBatch(Batch):
    """A `Batch` with conditions: x is kept and shows c_x, a shows the target and c_a says so.

    c_m: c_a with the anchor in the target's place; m: pictures that the original model draws under c_m; c_0: nothing,
    one row; z, t_z, c_z: states of the original model's sampling under the target's captions c_z, at time steps t_z.
    """

    m: Tensor = field(kw_only=True)
    c_m: Tensor = field(kw_only=True)
    c_0: Tensor = field(kw_only=True)
    z: Tensor = field(kw_only=True)
    t_z: Tensor = field(kw_only=True)
    c_z: Tensor = field(kw_only=True)


@dataclass
class ConceptData:
    """What a task trains on, in the model's own space (latents or pixels), float32 on the CPU.

    prompts: texts or classes, the first is "nothing"; the integers point into it. x [N, ...] shows kept[N]. Pair i:
    a[i] shows target[i], m[i] shows anchor[i], which is target[i] with the anchor in its place. z [P, S, ...] are
    states under target prompt traced[P] at time steps times[S].
    """

    prompts: list
    x: Tensor
    kept: Tensor
    a: Tensor
    m: Tensor
    target: Tensor
    anchor: Tensor
    z: Tensor
    traced: Tensor
    times: Tensor


class ConceptBatches:
    """Micro-batches drawn with replacement; a step's batches depend on its number alone. Prompts are encoded once."""

    def __init__(self, data: ConceptData, model: Diffuser, size: int, accumulate: int, key: tuple):
        self.data, self.total, self.device = data, len(model.schedule), model.device
        self.size, self.accumulate, self.key = size, accumulate, key
        with torch.no_grad():
            self.conditions = model.condition(data.prompts)

    def __call__(self, step: int) -> Iterator[ConceptBatch]:
        generator, data, c = seeds.generator(*self.key, step), self.data, self.conditions

        def rows(count: int) -> Tensor:
            return torch.randint(count, (self.size,), generator=generator)

        for _ in range(self.accumulate):
            x, pair, path, moment = rows(len(data.x)), rows(len(data.a)), rows(len(data.z)), rows(len(data.times))
            t, eps = draw_noise((self.size, *data.x.shape[1:]), self.total, generator)
            pick = torch.rand(self.size, generator=generator)
            drawn = (data.x[x], data.a[pair], t, eps, pick)
            more = {"m": data.m[pair], "z": data.z[path, moment], "t_z": data.times[moment]}
            yield ConceptBatch(
                *(v.to(self.device) for v in drawn), self.total, generator,
                c_x=c[data.kept[x]], c_a=c[data.target[pair]], c_m=c[data.anchor[pair]], c_0=c[:1],
                c_z=c[data.traced[path]], **{name: v.to(self.device) for name, v in more.items()},
            )  # fmt: skip


def save(data: ConceptData, folder: Path) -> None:
    """arrays.npz and prompts.json, atomically."""
    with atomic(folder) as temporary:
        write_json(temporary / "prompts.json", {"prompts": data.prompts})
        arrays = {f.name: getattr(data, f.name).numpy() for f in dataclasses.fields(data) if f.name != "prompts"}
        write_arrays(temporary / "arrays.npz", arrays)


def load(folder: Path) -> ConceptData:
    """What `save` wrote."""
    with np.load(folder / "arrays.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return ConceptData(prompts=read_json(folder / "prompts.json")["prompts"], **tensors)
