"""What prompt-side detectors ask of a model: noise predictions with and without the prompt, for batches of prompts."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from palinode.core import seeds
from palinode.core.scratch import Scratch
from palinode.memorization import detectors
from palinode.models.denoiser import Denoiser
from palinode.sampling.paired import SampleKey, chunks
from palinode.sampling.prompted import timesteps


class ProbeSettings(Protocol):
    """generations: noises a prompt; steps: of the sampler; batch: rows, prompts x generations, at a time."""

    @property
    def generations(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def guidance(self) -> float: ...

    @property
    def batch(self) -> int: ...


@dataclass(frozen=True)
class Probe:
    """Some prompts, each with several initial noises: N = prompts x generations rows, a prompt's rows side by side.

    condition: [N, L, D]; null: [1, L, D], that of the null prompt; noise: [N, C, h, w]; times: the sampler's time
    steps, descending; guidance: the scale of classifier-free guidance.
    """

    model: Denoiser
    condition: Tensor
    null: Tensor
    noise: Tensor
    times: list[int]
    guidance: float
    generations: int

    def predict_pair(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """(eps_0, eps_c), for the null prompt and the given one, [N, C, h, w], from one doubled batch."""
        when = torch.full((2 * len(x_t),), t, device=x_t.device)
        both = torch.cat([self.null.expand_as(self.condition), self.condition])
        both_eps = self.model.predict(torch.cat([x_t, x_t]), when, both)
        return both_eps[: len(x_t)], both_eps[len(x_t) :]

    def differentiate_pair(self, x_t: Tensor, t: int, v: Tensor) -> tuple[Tensor, Tensor]:
        """(J_0 v, J_c v), the derivatives of the pair along v, [N, C, h, w]."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The fused kernels have no forward-mode derivative; the warning is of a deprecated call inside torch.
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            product = torch.func.jvp(lambda x: torch.cat(self.predict_pair(x, t)), (x_t,), (v,))[1]
        return product[: len(x_t)], product[len(x_t) :]

    def guide(self, unconditional: Tensor, conditional: Tensor) -> Tensor:
        """The prediction that guidance makes of a pair."""
        return unconditional + self.guidance * (conditional - unconditional)

    def by_prompt(self, values: Tensor) -> Tensor:
        """[N, ...] as [prompts, generations, ...]."""
        return values.unflatten(0, (-1, self.generations))


def score_costs(names: Sequence[str], steps: int) -> dict[str, detectors.Cost]:
    """Every score of the detectors `names` and its cost, in the order of `measure`."""
    return {score: cost for name in names for score, cost in detectors.find(name).costs(steps).items()}


@torch.no_grad()
def measure(
    model: Denoiser,
    prompts: list[str],
    names: Sequence[str],
    settings: ProbeSettings,
    key: SampleKey,
    scratch: Scratch,
) -> dict[str, np.ndarray]:
    """Every score of every prompt by the detectors `names`, {score: float64 [prompts]}.

    key: (root seed, base), which with prompt index and generation makes the noise, whatever the batch; scratch: where
    finished batches wait, so that a killed run continues. UserError for a prompt that the text encoder does not take.
    """
    from tqdm import tqdm

    ids = model.prompt_ids(prompts)
    null = model.condition([model.null_prompt])
    times = timesteps(model.config, settings.steps)
    generations = settings.generations
    modules = [detectors.find(name) for name in names]
    scores = score_costs(names, settings.steps)

    def make(first: int, count: int) -> np.ndarray:
        condition = model.states(ids[first : first + count]).repeat_interleave(generations, 0)
        noise = draw_probe_noise(model, key, first, count, generations)
        probe = Probe(model, condition, null, noise, times, settings.guidance, generations)
        values = {score: value for module in modules for score, value in module.scores(probe).items()}
        return torch.stack([values[score].double().cpu() for score in scores]).numpy()

    plan = chunks(len(prompts), max(1, settings.batch // generations))
    progress = tqdm(plan, "prompts", mininterval=5, disable=len(plan) == 1)
    parts = [scratch.cached_array(f"chunk-{part[0]}", partial(make, *part)) for part in progress]
    return dict(zip(scores, np.concatenate(parts, axis=1), strict=True))


def draw_probe_noise(model: Denoiser, key: SampleKey, first: int, count: int, generations: int) -> Tensor:
    """Noise of prompts first..first+count-1, [count * generations, C, h, w]."""
    root, base = key
    drawn = [
        torch.randn(model.shape, generator=seeds.generator(root, "detect", base, prompt, generation))
        for prompt in range(first, first + count)
        for generation in range(generations)
    ]
    return torch.stack(drawn).to(model.device)
