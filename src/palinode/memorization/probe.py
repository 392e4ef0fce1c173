"""What prompt-side detectors ask of a model: noise predictions with and without the prompt, for batches of prompts."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.conditional_sampling import timesteps
from palinode.memorization import detectors
from palinode.sampling import chunk_file, chunks
from palinode.text_to_image import TextToImage


@dataclass(frozen=True)
class Probe:
    """Some prompts, each with several initial noises: N = prompts x generations rows, a prompt's rows side by side.

    condition: [N, L, D]; empty: [1, L, D], that of the empty prompt; noise: [N, C, h, w]; times: the sampler's time
    steps, descending; guidance: the scale of classifier-free guidance.
    """

    model: TextToImage
    condition: Tensor
    empty: Tensor
    noise: Tensor
    times: list[int]
    guidance: float
    generations: int

    def pair(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """(eps_0, eps_c), for the empty prompt and the given one, [N, C, h, w], from one doubled batch."""
        when = torch.full((2 * len(x_t),), t, device=x_t.device)
        both = torch.cat([self.empty.expand_as(self.condition), self.condition])
        nothing, given = self.model.predict(torch.cat([x_t, x_t]), when, both).chunk(2)
        return nothing, given

    def pair_jvp(self, x_t: Tensor, t: int, v: Tensor) -> tuple[Tensor, Tensor]:
        """(J_0 v, J_c v), the derivatives of the pair along v, [N, C, h, w]."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The fused kernels have no forward-mode derivative; the warning is of a deprecated call inside torch.
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            _, product = torch.func.jvp(lambda x: torch.cat(self.pair(x, t)), (x_t,), (v,))
        without, along = product.chunk(2)
        return without, along

    def guided(self, nothing: Tensor, given: Tensor) -> Tensor:
        """The prediction that guidance makes of a pair."""
        return nothing + self.guidance * (given - nothing)

    def by_prompt(self, values: Tensor) -> Tensor:
        """[N, ...] as [prompts, generations, ...]."""
        return values.unflatten(0, (-1, self.generations))


def score_costs(names: list[str], steps: int) -> dict[str, detectors.Cost]:
    """Every score of the detectors `names` and its cost, in the order of `measure`."""
    return {score: cost for name in names for score, cost in detectors.find(name).costs(steps).items()}


@torch.no_grad()
def measure(model: TextToImage, prompts: list[str], settings, key: tuple, folder: Path) -> dict[str, np.ndarray]:
    """Every score of every prompt, {score: float64 [prompts]}.

    settings: detectors, generations, steps, guidance, batch (rows at a time); key: (root seed, base), of which with
    prompt index and generation the noise is made, whatever the batch; folder: where finished batches wait, so that a
    killed run continues. UserError for a prompt that the text encoder does not take.
    """
    from tqdm import tqdm

    tokens, empty = model.tokens(prompts), model.condition([model.nothing])
    times, count = timesteps(model.config, settings.steps), settings.generations
    found = [detectors.find(name) for name in settings.detectors]
    names = score_costs(settings.detectors, settings.steps)

    def make(first: int, some: int) -> np.ndarray:
        condition = model.states(tokens[first : first + some]).repeat_interleave(count, 0)
        noise = initial_noise(model, key, first, some, count)
        probe = Probe(model, condition, empty, noise, times, settings.guidance, count)
        values = {name: value for detector in found for name, value in detector.scores(probe).items()}
        return torch.stack([values[name].double().cpu() for name in names]).numpy()

    plan = chunks(len(prompts), max(1, settings.batch // count))
    parts = [np.load(chunk_file(folder, part[0], partial(make, *part)))
             for part in tqdm(plan, "prompts", mininterval=5, disable=len(plan) == 1)]  # fmt: skip
    return dict(zip(names, np.concatenate(parts, axis=1), strict=True))


def initial_noise(model: TextToImage, key: tuple, first: int, some: int, generations: int) -> Tensor:
    """Noise of prompts first..first+some-1, [some * generations, C, h, w]."""
    root, base = key
    drawn = [torch.randn(model.shape, generator=seeds.generator(root, "detect", base, i, g))
             for i in range(first, first + some) for g in range(generations)]  # fmt: skip
    return torch.stack(drawn).to(model.device)
