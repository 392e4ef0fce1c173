"""Token attribution and mitigation at sampling time (Wen et al., ICLR 2024, arXiv 2407.21720).

Both differentiate the text-conditional noise norm at the sampler's first step, the score `noise_norm_first`.
Attribution does so after the embeddings of single tokens, to see which words trigger a memory. Mitigation does so after
the states that the network attends to, and Adam moves these until the norm is below a target. The weights stay as they
are: this is what to compare unlearning with.

Deviations: the paper stops below 3 on latents of 4 x 64 x 64. Here the target is the detector's own threshold, hence
what it flags is what is mitigated. One set of states serves all noises of a prompt.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.estimate import share
from palinode.core.images import to_images, to_model
from palinode.data.prompt_lists import Prompt
from palinode.data.scenes import EmojiCorpus
from palinode.memorization.probe import Probe, ProbeSettings, draw_probe_noise
from palinode.metrics.copies import COPY, copy_distance
from palinode.models.guidance import Guided, Wrapper
from palinode.models.text_to_image import TextToImage
from palinode.sampling.paired import SampleKey, initial_noise
from palinode.sampling.prompted import timesteps
from palinode.sampling.samplers import ddim

ITERATIONS = 10  # the paper's
RATE = 0.05  # the paper's
SCORE = "noise_norm_first"
NOISES = 4  # of a prompt that `Mitigating` meets
AT_ONCE = 16  # prompts


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
    """||eps(x_T, c) - eps(x_T, null)||_2, the mean over each prompt's noises, [prompts]."""
    unconditional, conditional = probe.predict_pair(probe.noise, probe.times[0])
    return probe.by_prompt((conditional - unconditional).flatten(1).norm(dim=1)).mean(1)


def attribute(probe: Probe, model: TextToImage, ids: Tensor) -> Tensor:
    """Norm of the first-step norm's gradient after each token's embedding, [prompts, L]; ids: int64 [prompts, L]."""
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    handle = model.text_encoder.get_input_embeddings().register_forward_hook(keep)
    with torch.enable_grad():
        try:
            states = model.states(ids)
        finally:
            handle.remove()
        norm = first_norm(replace(probe, condition=states.repeat_interleave(probe.generations, 0)))
        (gradient,) = torch.autograd.grad(norm.sum(), embedded[0])
    return gradient.norm(dim=2)


def mitigate(probe: Probe, target: float) -> tuple[Tensor, Tensor, Tensor]:
    """(states [N, L, D] with which each prompt's norm is below `target`, its norm before and after [prompts]).

    A prompt that is below already keeps its states. One that ITERATIONS steps do not bring below keeps its last ones.
    """
    states = probe.condition[:: probe.generations].detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([states], RATE)
    norm, states.grad = _differentiate_norm(probe, states)
    before = norm.clone()
    after = norm.clone()
    settled_states = states.detach().clone()
    settled = (norm < target).cpu()
    for _ in range(ITERATIONS):
        if settled.all():
            break
        optimizer.step()
        norm, states.grad = _differentiate_norm(probe, states)
        settled_states[~settled] = states.detach()[~settled]
        after[~settled] = norm[~settled]
        settled |= (norm < target).cpu()
    return settled_states.repeat_interleave(probe.generations, 0), before, after


def _differentiate_norm(probe: Probe, states: Tensor) -> tuple[Tensor, Tensor]:
    """(first-step norm of each prompt, gradient of their sum) after states, one set a prompt."""
    with torch.enable_grad():
        norm = first_norm(replace(probe, condition=states.repeat_interleave(probe.generations, 0)))
        (gradient,) = torch.autograd.grad(norm.sum(), states)
    return norm.detach(), gradient


class Mitigating(Wrapper):
    """A model that mitigates every prompt before it conditions on it; all else, the weights too, is the model's own.

    target: the norm to come below; key: (root seed, task); steps, guidance: of the sampler at whose first step the norm
    is measured. One set of states serves all noises of a prompt.
    """

    def __init__(self, model: TextToImage, target: float, key: SampleKey, steps: int, guidance: float):
        super().__init__(model)
        self.target = target
        self.key = key
        self.steps = steps
        self.guidance = guidance
        self._states: dict[str, Tensor] = {}

    def condition(self, prompts: list[str]) -> Tensor:
        """Prompts to states, [B, L, D]; a prompt whose norm is below the target already keeps its own."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._states]
        with torch.inference_mode(False), torch.no_grad():
            for first in range(0, len(new), AT_ONCE):
                part = new[first : first + AT_ONCE]
                self._states |= dict(zip(part, self._mitigate(part), strict=True))
        return torch.stack([self._states[prompt] for prompt in prompts])

    def _mitigate(self, prompts: list[str]) -> Tensor:
        model = self.model
        root, task = self.key
        noise = torch.cat([initial_noise(model, (root, f"{task} mitigated {prompt}"), 0, NOISES) for prompt in prompts])
        states = model.condition(prompts).repeat_interleave(NOISES, 0)
        null = model.condition([model.null_prompt])
        probe = Probe(model, states, null, noise, timesteps(model.config, self.steps), self.guidance, NOISES)
        return mitigate(probe, self.target)[0][::NOISES]


@torch.no_grad()
def run(
    model: TextToImage,
    prompts: Sequence[Prompt],
    flagged: Sequence[int],
    target: float,
    settings: ProbeSettings,
    key: SampleKey,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Mitigated]:
    """Mitigate the prompts `flagged` of `prompts`; settings and key as of `probe.measure`, hence the same noises."""
    null = model.condition([model.null_prompt])
    generations = settings.generations
    times = timesteps(model.config, settings.steps)
    size = max(1, settings.batch // generations)
    done = []
    for first in progress(range(0, len(flagged), size)):
        part = flagged[first : first + size]
        ids = model.prompt_ids([prompts[i].text for i in part])
        noise = torch.cat([draw_probe_noise(model, key, i, 1, generations) for i in part])
        condition = model.states(ids).repeat_interleave(generations, 0)
        probe = Probe(model, condition, null, noise, times, settings.guidance, generations)
        states, before, after = mitigate(probe, target)
        drawn = torch.stack([probe.by_prompt(_draw(probe, used)) for used in (condition, states)], 1).numpy()
        importance = attribute(probe, model, ids)
        for row, i in enumerate(part):
            words = _share_words(model, prompts[i].text, importance[row])
            done.append(Mitigated(prompts[i], float(before[row]), float(after[row]), words, drawn[row]))
    return done


def _draw(probe: Probe, states: Tensor) -> Tensor:
    """Pictures from the probe's noises under other states, uint8 [N, H, W, C]."""
    guided = Guided(probe.model, states, probe.null, probe.guidance)
    return torch.from_numpy(to_images(probe.model.decode(ddim(guided, probe.noise, probe.times))))


def _share_words(model: TextToImage, prompt: str, importance: Tensor) -> list[tuple[str, float]]:
    """The tokens between start and end with their shares of the importance of these, in the prompt's order."""
    ids = model.tokenizer(prompt).input_ids[1:-1]
    names = model.tokenizer.convert_ids_to_tokens(ids)
    own = importance[1 : len(ids) + 1]
    shares = own / own.sum().clamp(min=torch.finfo(own.dtype).tiny)
    return [(name.removesuffix("</w>"), float(value)) for name, value in zip(names, shares, strict=True)]


@dataclass(frozen=True)
class Shown:
    """What pictures of a corpus's prompts may show: its fixed pictures, and things that its judge knows."""

    corpus: EmojiCorpus
    judge: SceneJudge

    def share_copies(self, images: np.ndarray) -> dict[str, Any]:
        """Of uint8 images [N, H, W, C], those that copy a fixed picture, by the base's gate."""
        near = copy_distance(images, self.corpus).min(1) < COPY
        return share(int(near.sum()), len(near))

    def find_thing(self, prompt: Prompt) -> int | None:
        """The number of the thing that a fixed picture's caption names, if the corpus knows it."""
        icons = [picture.icon for picture in self.corpus.pictures if picture.caption == prompt.text]
        things = list(self.corpus.concepts)
        return things.index(icons[0]) if icons and icons[0] in things else None

    @torch.inference_mode()
    def share_right(self, images: np.ndarray, things: np.ndarray) -> dict[str, Any]:
        """Of uint8 images [N, H, W, C], those in which the judge sees the thing that was asked for, [N]."""
        concept, _ = self.judge(to_model(images))
        return share(int((concept.argmax(1).numpy() == things).sum()), len(images))


def summarise(
    done: Sequence[Mitigated], prompts: Sequence[Prompt], target: float, shown: Shown | None
) -> dict[str, Any]:
    """{kind of prompt: prompts, flagged, below (the target, after), norm, copies and things before and after}.

    copies: the share of pictures that copy a fixed picture; things: of the captions of fixed pictures that name a known
    thing, the share in which it is seen. Both are left out where nothing is known of the base.
    """
    kinds = dict.fromkeys(prompt.kind for prompt in prompts)
    return {"target": target, "kinds": {kind: _summarise_kind(kind, done, prompts, target, shown) for kind in kinds}}


def _summarise_kind(
    kind: str, done: Sequence[Mitigated], prompts: Sequence[Prompt], target: float, shown: Shown | None
) -> dict[str, Any]:
    mitigated = [entry for entry in done if entry.prompt.kind == kind]
    summary: dict[str, Any] = {
        "prompts": sum(prompt.kind == kind for prompt in prompts),
        "flagged": len(mitigated),
    }
    if mitigated:
        summary["below"] = sum(entry.after < target for entry in mitigated)
        before = [entry.before for entry in mitigated]
        after = [entry.after for entry in mitigated]
        summary["norm"] = [float(np.mean(before)), float(np.mean(after))]
        pictures = np.stack([entry.pictures for entry in mitigated], 1)  # [2, prompts, generations, H, W, C]
        drawn = pictures.reshape(2, -1, *pictures.shape[3:])
        summary["copies"] = [shown.share_copies(images) for images in drawn] if shown else []
        summary["things"] = _share_things(mitigated, pictures, shown) if shown else []
    return summary


def _share_things(mitigated: Sequence[Mitigated], pictures: np.ndarray, shown: Shown) -> list[dict[str, Any]]:
    """Before and after; nothing where no prompt names a known thing. pictures: [2, prompts, generations, H, W, C]."""
    things = [shown.find_thing(entry.prompt) for entry in mitigated]
    known = [i for i, thing in enumerate(things) if thing is not None]
    if not known:
        return []
    wanted = np.repeat([things[i] for i in known], pictures.shape[2])
    return [shown.share_right(part[known].reshape(-1, *pictures.shape[3:]), wanted) for part in pictures]
