"""Paired sampling: image i of a task starts from the same noise, and meets the same noise at every step, in every
model.

A sample's seed is hash(root, "sample", task, i): never the method, never the training seed. Images are computed in
fixed chunks by index, so that the bytes do not depend on the number of processes or on the order; another chunk size
changes them by rounding only.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.diffusion import spaced
from palinode.errors import UserError
from palinode.io import write_array
from palinode.models import Diffuser, to_images
from palinode.scratch import Scratch
from palinode.settings import runtime

Draw = Callable[[], Tensor]


def ddpm(model: Diffuser, x: Tensor, timesteps: list[int], draw: Draw) -> Tensor:
    """Ancestral sampling (DDPM, Algorithm 2) with the respaced posterior and the "fixed small" variance.

    x: x_t at timesteps[0], [B, C, H, W]; timesteps descend; draw() is the step's noise. Returns x_0. As diffusers'
    DDPMScheduler: variance floored at 1e-20, no noise in the last step.
    """
    for t, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        x = ddpm_step(model, x, t, previous, draw)
    return x


def ddpm_step(model: Diffuser, x: Tensor, t: int, previous: int, draw: Draw) -> Tensor:
    """One step of `ddpm`, from x_t to x at step `previous`; -1 stands for x_0."""
    abar = float(model.schedule.alpha_bar[t])
    abar_prev = float(model.schedule.alpha_bar[previous]) if previous >= 0 else 1.0
    alpha = abar / abar_prev
    x0, _ = _predict_x0(model, x, t)
    mean = (abar_prev**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - abar_prev) * x) / (1 - abar)
    variance = max((1 - abar_prev) / (1 - abar) * (1 - alpha), 1e-20)
    return mean + variance**0.5 * draw() if previous >= 0 else mean


def ddim(model: Diffuser, x: Tensor, timesteps: list[int], draw: Draw) -> Tensor:
    """Deterministic sampling (DDIM, eta = 0); the arguments are those of `ddpm`, `draw` is never called."""
    for t, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        abar_prev = float(model.schedule.alpha_bar[previous]) if previous >= 0 else model.schedule.final
        x0, eps = _predict_x0(model, x, t)
        x = abar_prev**0.5 * x0 + (1 - abar_prev) ** 0.5 * eps
    return x


SAMPLERS = {"ddpm": ddpm, "ddim": ddim}


def _predict_x0(model: Diffuser, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    abar = float(model.schedule.alpha_bar[t])
    eps = model.predict(x, torch.full((len(x),), t, device=x.device))
    x0 = (x - (1 - abar) ** 0.5 * eps) / abar**0.5
    return (x0.clamp(-1, 1) if model.schedule.clip else x0), eps


@torch.inference_mode()
def sample_chunk(model: Diffuser, key: tuple, first: int, count: int, sampler: str, steps: int) -> np.ndarray:
    """Images first..first+count-1 as uint8 [count, H, W, C]; `key` is (root seed, task)."""
    generators = noise_generators(key, first, count)
    buffer = torch.empty(count, *model.shape)

    def draw() -> Tensor:
        for row, generator in zip(buffer, generators, strict=True):
            row.normal_(generator=generator)
        return buffer.to(model.device, copy=True)

    return to_images(SAMPLERS[sampler](model, draw(), spaced(len(model.schedule), steps), draw))


def noise_generators(key: tuple, first: int, count: int) -> list[torch.Generator]:
    """One generator for each of the images first..first+count-1; `key` is (root seed, task)."""
    root, task = key
    return [seeds.generator(root, "sample", task, i) for i in range(first, first + count)]


def chunks(count: int, size: int) -> list[tuple[int, int]]:
    """(first index, length) of the fixed chunks that cover 0..count-1."""
    return [(first, min(size, count - first)) for first in range(0, count, size)]


def sample_all(model: Diffuser, key: tuple, count: int, settings, scratch: Scratch, label: str) -> np.ndarray:
    """All `count` images, uint8 [count, H, W, C]; finished chunks wait in `scratch`, so a killed run continues."""
    from tqdm import tqdm

    plan = chunks(count, settings.chunk)
    done = [_chunk(scratch.folder, model, key, part, settings) for part in tqdm(plan, label, mininterval=5)]
    return np.concatenate([np.load(file) for file in done])


def _chunk(folder: Path, model: Diffuser, key: tuple, part: tuple[int, int], settings) -> Path:
    return chunk_file(folder, part[0], lambda: sample_chunk(model, key, *part, settings.sampler, settings.steps))


def chunk_file(folder: Path, first: int, make: Callable[[], np.ndarray]) -> Path:
    """The finished chunk that starts at image `first`, made unless an interrupted run already has."""
    path = folder / f"chunk-{first}.npy"
    if not path.exists():
        write_array(path, make())
    return path


SHARDS = "PALINODE_SHARDS"  # set for the worker processes: the folder that takes their chunks


def share_work(scratch: Scratch) -> None:
    """With `runtime.processes` > 1, let that many copies of this script make the chunks first.

    torch's launcher, because accelerate's starts a single process on a CPU.
    """
    processes = runtime().processes
    if processes == 1:
        return
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    finished = subprocess.run([*launcher, *sys.argv], env=os.environ | {SHARDS: str(scratch.folder)})
    if finished.returncode:
        raise UserError(f"a sampling process ended with status {finished.returncode}")


def is_worker() -> bool:
    """True in a process that `share_work` started."""
    return SHARDS in os.environ


def worker_device(device: torch.device) -> torch.device:
    """The device of this worker: its own GPU, or the CPU."""
    from accelerate import PartialState

    return PartialState(cpu=device.type == "cpu").device


def work(model: Diffuser, key: tuple, count: int, settings) -> None:
    """Make this worker's chunks: every processes-th one."""
    from accelerate import PartialState

    state = PartialState()
    torch.set_num_threads(runtime().threads)  # the launcher changes it, and the bytes may depend on it
    for part in chunks(count, settings.chunk)[state.process_index :: state.num_processes]:
        _chunk(Path(os.environ[SHARDS]), model, key, part, settings)
