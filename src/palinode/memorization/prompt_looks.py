"""What a model draws under the prompts it is to forget, and beside them: always from the same noises."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from palinode import seeds
from palinode.conditional_sampling import draw, noise, timesteps, trace
from palinode.memorization.ground import Beside
from palinode.memorization.probe import Probe
from palinode.text_to_image import TextToImage

VERSIONS = ("modified", "original")  # of a prompt: what the paper calls partially and fully memorised


@dataclass(frozen=True)
class Look:
    """What one look at a prompt found: pictures uint8 [versions, N, H, W, C], norms float32 [versions, N], those of
    the text-conditional noise at the sampler's first step."""

    pictures: np.ndarray
    norms: np.ndarray


@dataclass(frozen=True)
class Artist:
    """A model with the settings and names of its draws. settings: root_seed, task, sample; folder: where finished
    pictures wait, so that a killed run continues."""

    model: TextToImage
    settings: object
    folder: Path | None = None

    def draw(self, prompts: list[str], use: str) -> np.ndarray:
        """One picture a prompt, uint8 [N, H, W, C]; picture i of one use comes from the same noise in every model."""
        sample, key = self.settings.sample, (self.settings.root_seed, f"{self.settings.task} {use}")
        place = self.folder and self.folder / f"{seeds.derive(use, *prompts):016x}"
        scale = 1.0 if {*prompts} == {self.model.nothing} else sample.guidance  # from nothing it leads to nothing else
        return draw(self.model, prompts, key, scale, sample.steps, place, sample.chunk)

    def look(self, texts: list[str]) -> Look:
        """At the versions of a prompt, [modified, original]: the same noises for both."""
        count, use = self.settings.sample.count, f"look {texts[-1]}"
        pictures = np.stack([self.draw([text] * count, use) for text in texts])
        return Look(pictures, np.stack([self._norms(text, use) for text in texts]))

    def aside(self, beside: Beside) -> tuple[np.ndarray, np.ndarray]:
        """A picture under each ordinary prompt, and under each of the others."""
        return self.draw(beside.ordinary, "ordinary"), self.draw(beside.others, "others")

    def trace(self, text: str) -> torch.Tensor:
        """States of sampling under a prompt, float32 [count, steps, C, h, w]."""
        sample, key = self.settings.sample, (self.settings.root_seed, f"{self.settings.task} trace {text}")
        return trace(self.model, [text] * sample.count, key, sample.guidance, sample.steps, sample.chunk)[1]

    @torch.no_grad()
    def _norms(self, text: str, use: str) -> np.ndarray:
        model, sample = self.model, self.settings.sample
        started = noise(model, (self.settings.root_seed, f"{self.settings.task} {use}"), 0, sample.count)
        given, empty = model.condition([text]), model.condition([model.nothing])
        times, norms = timesteps(model.config, sample.steps), []
        for some in started.split(sample.chunk):
            told = given.expand(len(some), -1, -1)
            nothing, predicted = Probe(model, told, empty, some, times, sample.guidance, len(some)).pair(some, times[0])
            norms.append((predicted - nothing).flatten(1).norm(dim=1))
        return torch.cat(norms).cpu().numpy()
