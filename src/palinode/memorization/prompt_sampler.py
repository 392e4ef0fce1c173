"""What a model draws under the prompts it is to forget, and under control prompts: always from the same noises."""

from dataclasses import dataclass

import numpy as np
import torch

from palinode.core import seeds
from palinode.core.scratch import Scratch
from palinode.memorization.control_prompts import ControlPrompts
from palinode.memorization.probe import Probe
from palinode.models.text_to_image import TextToImage
from palinode.params.prompt_tasks import PromptSample
from palinode.sampling.paired import initial_noise
from palinode.sampling.prompted import draw, timesteps

VERSIONS = ("modified", "original")  # of a prompt: what the SISS paper calls partially and fully memorized


@dataclass(frozen=True)
class Snapshot:
    """What a model drew under a prompt after some steps.

    pictures: uint8 [versions, N, H, W, C]; norms: float32 [versions, N], those of the text-conditional noise at the
    detectors' first step.
    """

    pictures: np.ndarray
    norms: np.ndarray


@dataclass(frozen=True)
class PromptSampler:
    """A model with the settings and names of its draws.

    name: of the task, for seeds; probe_steps: of the sampler at whose first step norms are measured, that of the
    detectors; scratch: where finished pictures wait, so that a killed run continues.
    """

    model: TextToImage
    root_seed: int
    name: str
    sample: PromptSample
    probe_steps: int
    scratch: Scratch | None = None

    def draw(self, prompts: list[str], use: str) -> np.ndarray:
        """One picture a prompt, uint8 [N, H, W, C]; picture i of one use comes from the same noise in every model."""
        key = (self.root_seed, f"{self.name} {use}")
        place = self.scratch and self.scratch.part(f"{seeds.derive(use, *prompts):016x}")
        # From the null prompt, guidance leads to nothing else.
        unguided = {*prompts} == {self.model.null_prompt}
        scale = 1.0 if unguided else self.sample.guidance
        return draw(self.model, prompts, key, scale, self.sample.steps, place, self.sample.chunk)

    def snapshot(self, texts: list[str]) -> Snapshot:
        """Of the versions of a prompt, [modified, original]: the same noises for both."""
        use = f"look {texts[-1]}"
        pictures = np.stack([self.draw([text] * self.sample.count, use) for text in texts])
        norms = np.stack([self._norms(text, use) for text in texts])
        return Snapshot(pictures, norms)

    def control_samples(self, controls: ControlPrompts) -> tuple[np.ndarray, np.ndarray]:
        """A picture under each ordinary prompt, and under each of the others."""
        return self.draw(controls.ordinary, "ordinary"), self.draw(controls.others, "others")

    @torch.no_grad()
    def _norms(self, text: str, use: str) -> np.ndarray:
        model = self.model
        sample = self.sample
        noise = initial_noise(model, (self.root_seed, f"{self.name} {use}"), 0, sample.count)
        condition = model.condition([text])
        null = model.condition([model.null_prompt])
        times = timesteps(model.config, self.probe_steps)
        norms = []
        for part in noise.split(sample.chunk):
            repeated = condition.expand(len(part), -1, -1)
            probe = Probe(model, repeated, null, part, times, sample.guidance, len(part))
            unconditional, conditional = probe.predict_pair(part, times[0])
            norms.append((conditional - unconditional).flatten(1).norm(dim=1))
        return torch.cat(norms).cpu().numpy()
