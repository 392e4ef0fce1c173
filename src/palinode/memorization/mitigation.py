"""Token attribution and mitigation at sampling time (Wen et al., ICLR 2024, arXiv 2407.21720).

Both differentiate the text-conditional noise norm at the sampler's first step, the score `noise_norm_first`: after the
embeddings of single tokens, to see which words trigger a memory; after the states that the network attends to, which
Adam then moves until the norm is below a target. The weights stay as they are: what to compare unlearning with. The
paper stops below 3 on latents of 4 x 64 x 64; here the target is the detector's own threshold, hence what it flags is
what is mitigated. One set of states serves all noises of a prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from palinode import conditional_sampling, text_gate
from palinode.conditional_sampling import timesteps
from palinode.data.scenes import World
from palinode.guidance import Guided
from palinode.memorization.probe import Probe, initial_noise
from palinode.memorization.prompts import Prompt
from palinode.metrics.record import share
from palinode.models import to_images
from palinode.sampling import ddim
from palinode.text_to_image import TextToImage

ITERATIONS, RATE = 10, 0.05  # the paper's
SCORE = "noise_norm_first"
NOISES, AT_ONCE = 4, 16  # of a prompt that `Mitigating` is told; prompts


@dataclass(frozen=True)
class Mitigated:
    """What was done about one prompt.

    before, after: its first-step norm; words: how strongly the norm depends on each token of it, [(word, share)];
    pictures: uint8 [2, generations, H, W, C], drawn from the same noises before and after.
    """

    prompt: Prompt
    before: float
    after: float
    words: list[tuple[str, float]]
    pictures: np.ndarray


def first_norm(probe: Probe) -> Tensor:
    """||eps(x_T, c) - eps(x_T, nothing)||_2, the mean over each prompt's noises, [prompts]."""
    nothing, given = probe.pair(probe.noise, probe.times[0])
    return probe.by_prompt((given - nothing).flatten(1).norm(dim=1)).mean(1)


def attribution(probe: Probe, tokens: Tensor) -> Tensor:
    """Norm of the first-step norm's gradient after each token's embedding, [prompts, L]; tokens: int64 [prompts, L]."""
    kept: list[Tensor] = []

    def keep(module, inputs, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    handle = probe.model.text_encoder.get_input_embeddings().register_forward_hook(keep)
    with torch.enable_grad():
        try:
            states = probe.model.states(tokens)
        finally:
            handle.remove()
        norm = first_norm(replace(probe, condition=states.repeat_interleave(probe.generations, 0)))
        (gradient,) = torch.autograd.grad(norm.sum(), kept[0])
    return gradient.norm(dim=2)


def mitigate(probe: Probe, target: float) -> tuple[Tensor, Tensor, Tensor]:
    """(states [N, L, D] with which each prompt's norm is below `target`, its norm before and after [prompts]).

    A prompt that is below already keeps its states; one that ITERATIONS steps do not bring below goes on from there.
    """
    states = probe.condition[:: probe.generations].detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([states], RATE)
    kept, before, settled = states.detach().clone(), None, torch.zeros(len(states), dtype=torch.bool)
    for step in range(ITERATIONS + 1):
        with torch.enable_grad():
            norm = first_norm(replace(probe, condition=states.repeat_interleave(probe.generations, 0)))
            (states.grad,) = torch.autograd.grad(norm.sum(), states)
        if before is None:
            before, after = norm.detach(), norm.detach().clone()
        kept[~settled], after[~settled] = states.detach()[~settled], norm.detach()[~settled]
        settled |= (norm < target).cpu()
        if settled.all() or step == ITERATIONS:
            break
        optimizer.step()
    return kept.repeat_interleave(probe.generations, 0), before, after


class Mitigating:
    """A model that mitigates every prompt before it is told it; weights, and all else, are the model's own.

    target: the norm to come below; settings: root_seed, task, sample. One set of states serves all noises of a prompt.
    """

    def __init__(self, model: TextToImage, target: float, settings):
        self.model, self.target, self.settings, self._known = model, target, settings, {}

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def condition(self, prompts: list[str]) -> Tensor:
        """Prompts to states, [B, L, D]; a prompt whose norm is below the target already keeps its own."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        with torch.inference_mode(False), torch.no_grad():
            for first in range(0, len(new), AT_ONCE):
                some = new[first : first + AT_ONCE]
                self._known |= dict(zip(some, self._states(some), strict=True))
        return torch.stack([self._known[prompt] for prompt in prompts])

    def _states(self, prompts: list[str]) -> Tensor:
        model, sample, task = self.model, self.settings.sample, self.settings.task
        keys = [(self.settings.root_seed, f"{task} mitigated {prompt}") for prompt in prompts]
        started = torch.cat([conditional_sampling.noise(model, key, 0, NOISES) for key in keys])
        states = model.condition(prompts).repeat_interleave(NOISES, 0)
        empty, times = model.condition([model.nothing]), timesteps(model.config, sample.steps)
        probe = Probe(model, states, empty, started, times, sample.guidance, NOISES)
        return mitigate(probe, self.target)[0][::NOISES]


@torch.no_grad()
def run(
    model: TextToImage,
    asked: list[Prompt],
    flagged: list[int],
    target: float,
    settings,
    key: tuple,
    progress: Callable = iter,
) -> list[Mitigated]:
    """Mitigate the prompts `flagged` of `asked`; settings and key as of `probe.measure`, hence the same noises."""
    empty, count, done = model.condition([model.nothing]), settings.generations, []
    times, size = timesteps(model.config, settings.steps), max(1, settings.batch // settings.generations)
    for first in progress(range(0, len(flagged), size)):
        some = flagged[first : first + size]
        tokens = model.tokens([asked[i].text for i in some])
        noise = torch.cat([initial_noise(model, key, i, 1, count) for i in some])
        condition = model.states(tokens).repeat_interleave(count, 0)
        probe = Probe(model, condition, empty, noise, times, settings.guidance, count)
        states, before, after = mitigate(probe, target)
        drawn = torch.stack([probe.by_prompt(_draw(probe, used)) for used in (condition, states)], 1).numpy()
        importance = attribution(probe, tokens)
        for k, i in enumerate(some):
            words = _words(model, asked[i].text, importance[k])
            done.append(Mitigated(asked[i], float(before[k]), float(after[k]), words, drawn[k]))
    return done


def _draw(probe: Probe, states: Tensor) -> Tensor:
    """Pictures from the probe's noises under other states, uint8 [N, H, W, C]."""
    guided = Guided(probe.model, states, probe.empty, probe.guidance)
    return torch.from_numpy(to_images(probe.model.decode(ddim(guided, probe.noise, probe.times, draw=lambda: None))))


def _words(model: TextToImage, prompt: str, importance: Tensor) -> list[tuple[str, float]]:
    """The tokens between start and end with their shares of the importance of these, in the prompt's order."""
    tokens = model.tokenizer(prompt).input_ids[1:-1]
    names, own = model.tokenizer.convert_ids_to_tokens(tokens), importance[1 : len(tokens) + 1]
    shares = own / own.sum().clamp(min=torch.finfo(own.dtype).tiny)
    return [(name.removesuffix("</w>"), float(value)) for name, value in zip(names, shares, strict=True)]


def summary(done: list[Mitigated], asked: list[Prompt], target: float, world: World | None) -> dict:
    """{kind of prompt: prompts, flagged, below (the target, after), norm and copies before and after}.

    copies: the share of pictures that copy a fixed picture of the world, by the base's gate; left out without a world.
    """
    found = {}
    for kind in dict.fromkeys(prompt.kind for prompt in asked):
        some = [it for it in done if it.prompt.kind == kind]
        entry = {"prompts": sum(prompt.kind == kind for prompt in asked), "flagged": len(some)}
        if some:
            entry["below"] = sum(it.after < target for it in some)
            entry["norm"] = [float(np.mean([getattr(it, when) for it in some])) for when in ("before", "after")]
            pictures = np.stack([it.pictures for it in some], 1)  # [2, prompts, generations, H, W, C]
            drawn = pictures.reshape(2, -1, *pictures.shape[3:])
            entry["copies"] = [_copies(images, world) for images in drawn] if world else []
        found[kind] = entry
    return {"target": target, "kinds": found}


def _copies(images: np.ndarray, world: World) -> dict:
    near = text_gate.copy_distance(images, world).min(1) < text_gate.COPY
    return share(int(near.sum()), len(near))
