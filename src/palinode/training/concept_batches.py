"""Concept unlearning: what a step sees of the target, of the anchor that takes its place, and of what stays."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from palinode.core.io import atomic, read_arrays, read_json, write_arrays, write_json
from palinode.models.denoiser import Denoiser
from palinode.training.batches import Batch, StepBatches, draw_noise, draw_rows


@dataclass
class ConceptBatch(Batch):
    """A `Batch` with conditions: x is retained and shows c_x, a shows the target and c_a says so.

    c_anchor: c_a with the anchor in the target's place; anchor: pictures that the original model draws under c_anchor;
    c_null: the null prompt's condition, one row; traj, t_traj, c_traj: states of the original model's sampling
    trajectories under the target's prompts c_traj, at time steps t_traj.
    """

    anchor: Tensor = field(kw_only=True)
    c_anchor: Tensor = field(kw_only=True)
    c_null: Tensor = field(kw_only=True)
    traj: Tensor = field(kw_only=True)
    t_traj: Tensor = field(kw_only=True)
    c_traj: Tensor = field(kw_only=True)


@dataclass
class ConceptData:
    """What a concept or a prompt trains on, in the model's own space (latents or pixels), float32 on the CPU.

    prompts: texts or classes, the first is the null prompt; the `*_prompt` numbers point into it. retain [N, ...] shows
    retain_prompt [N]. Pair i: forget[i] shows forget_prompt[i], anchor[i] shows anchor_prompt[i], the same prompt with
    the anchor in the target's place. trajectory [P, S, ...]: states under trajectory_prompt[P] at time steps
    trajectory_times[S].
    """

    prompts: list
    retain: Tensor
    retain_prompt: Tensor
    forget: Tensor
    forget_prompt: Tensor
    anchor: Tensor
    anchor_prompt: Tensor
    trajectory: Tensor
    trajectory_prompt: Tensor
    trajectory_times: Tensor


class ConceptBatches(StepBatches[ConceptBatch]):
    """Micro-batches drawn with replacement; every prompt is encoded once, at the start."""

    def __init__(self, data: ConceptData, model: Denoiser, size: int, accumulate: int, key: tuple):
        super().__init__(key, accumulate)
        self.data = data
        self.total = len(model.schedule)
        self.device = model.device
        self.size = size
        with torch.no_grad():
            self.conditions = model.condition(data.prompts)

    def draw(self, generator: torch.Generator, step: int) -> ConceptBatch:
        data, c = self.data, self.conditions
        retained = draw_rows(len(data.retain), self.size, generator)
        pair = draw_rows(len(data.forget), self.size, generator)
        path = draw_rows(len(data.trajectory), self.size, generator)
        moment = draw_rows(len(data.trajectory_times), self.size, generator)
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
            traj=data.trajectory[path, moment].to(self.device),
            t_traj=data.trajectory_times[moment].to(self.device),
            c_traj=c[data.trajectory_prompt[path]],
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
