"""Concept unlearning: what a step sees of the target, of the anchor that takes its place, and of what stays."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from palinode.core.io import atomic, read_arrays, read_json, write_arrays, write_json
from palinode.models.denoiser import Denoiser
from palinode.sampling.prompted import timesteps, trajectory_states
from palinode.training.batches import Batch, StepBatches, draw_noise, draw_rows


@dataclass
class ConceptBatch(Batch):
    """A `Batch` with conditions: x is retained and shows c_x, a shows the target and c_a says so.

    c_anchor: c_a with the anchor in the target's place; anchor: pictures that the original model draws under c_anchor;
    c_null: the null prompt's condition, one row; times: the time steps of the sampler whose
    trajectories can be followed.
    """

    anchor: Tensor = field(kw_only=True)
    c_anchor: Tensor = field(kw_only=True)
    c_null: Tensor = field(kw_only=True)
    times: list[int] = field(kw_only=True)

    def trajectory_states(self, model: Denoiser, guidance: float) -> tuple[Tensor, Tensor]:
        """States of fresh sampling trajectories of a model under c_a, each stopped at random: (z_t like a, t [B])."""
        assert self.c_a is not None
        return trajectory_states(model, self.c_a, self.c_null, guidance, self.times, self.generator)


@dataclass
class ConceptData:
    """What a concept or a prompt trains on, in the model's own space (latents or pixels), float32 on the CPU.

    prompts: texts or classes, the first is the null prompt; the `*_prompt` numbers point into it. retain [N, ...] shows
    retain_prompt [N]. Pair i: forget[i] shows forget_prompt[i], anchor[i] shows anchor_prompt[i], the same prompt with
    the anchor in the target's place.
    """

    prompts: list
    retain: Tensor
    retain_prompt: Tensor
    forget: Tensor
    forget_prompt: Tensor
    anchor: Tensor
    anchor_prompt: Tensor


class ConceptBatches(StepBatches[ConceptBatch]):
    """Micro-batches drawn with replacement; every prompt is encoded once, at the start.

    trajectory_steps: of the sampler whose trajectories a batch can follow; neighbours: rows of data.retain nearest to
    each of data.forget, int64 [N, K], or None.
    """

    def __init__(
        self,
        data: ConceptData,
        model: Denoiser,
        size: int,
        accumulate: int,
        key: tuple,
        trajectory_steps: int = 1,
        neighbours: Tensor | None = None,
    ):
        super().__init__(key, accumulate)
        self.neighbours = neighbours
        self.data = data
        self.times = timesteps(model.config, trajectory_steps)
        self.total = len(model.schedule)
        self.device = model.device
        self.size = size
        with torch.no_grad():
            self.conditions = model.condition(data.prompts)

    def draw(self, generator: torch.Generator, step: int) -> ConceptBatch:
        data, c = self.data, self.conditions
        retained = draw_rows(len(data.retain), self.size, generator)
        pair = draw_rows(len(data.forget), self.size, generator)
        t, eps = draw_noise((self.size, *data.retain.shape[1:]), self.total, generator)
        u = torch.rand(self.size, generator=generator)
        return ConceptBatch(
            x=data.retain[retained].to(self.device),
            a=data.forget[pair].to(self.device),
            t=t.to(self.device),
            eps=eps.to(self.device),
            u=u.to(self.device),
            total=self.total,
            generator=generator,
            c_x=c[data.retain_prompt[retained]],
            c_a=c[data.forget_prompt[pair]],
            anchor=data.anchor[pair].to(self.device),
            c_anchor=c[data.anchor_prompt[pair]],
            c_null=c[:1],
            times=self.times,
            neighbours=None if self.neighbours is None else data.retain[self.neighbours[pair]].to(self.device),
        )


def save(data: ConceptData, edit_prompts: dict[str, list[str]], folder: Path) -> None:
    """arrays.npz, prompts.json, and the prompts of closed-form edits, atomically."""
    with atomic(folder) as temporary:
        write_json(temporary / "prompts.json", {"prompts": data.prompts})
        write_json(temporary / "edit_prompts.json", edit_prompts)
        arrays = {f.name: getattr(data, f.name).numpy() for f in dataclasses.fields(data) if f.name != "prompts"}
        write_arrays(temporary / "arrays.npz", arrays)


def load(folder: Path) -> ConceptData:
    """What `save` wrote."""
    tensors = {name: torch.from_numpy(array) for name, array in read_arrays(folder / "arrays.npz").items()}
    return ConceptData(prompts=read_json(folder / "prompts.json")["prompts"], **tensors)
