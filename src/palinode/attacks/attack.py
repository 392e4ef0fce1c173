"""Two small attacks on a model that should have forgotten: is the target gone, or only hard to reach?

relearn: fine-tune all weights of the denoiser on the target's pictures. prompt-tuning: leave every weight as it is and
optimise a few free embeddings in front of the target's prompts, one set for all prompts. Both minimise

    E_{x of the target} E_{t,eps} ||eps - eps_theta(x_t, t, c)||^2

over theta or over what c is made of. The second is the objective of UnlearnDiffAtk (Zhang et al., arXiv 2310.11868)
with free embeddings for words, an upper bound on what as many words can do. Unlike there, nothing is fitted to a single
prompt and no judge says when to stop. A class has no prompt: our analogue is a free vector for its class embedding.
What the retrained model draws with it is what the pictures taught the vector, not what the model knew.

Attackers have weights, pictures and prompts that unlearning was given, and never see the judge or the noise of judged
pictures. Their budget is small: what comes back is a lower bound on what an attacker can get.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from palinode.bases.progress import Watch
from palinode.core import seeds
from palinode.core.scratch import Scratch
from palinode.models.denoiser import Denoiser
from palinode.models.prompt_tuning import free_prompts
from palinode.params.attacks import PromptTuning
from palinode.params.stage_settings import AttackConcept
from palinode.training.batches import StepBatches, draw_noise, draw_rows
from palinode.training.concept_batches import ConceptData
from palinode.training.denoising import ConditionalBatch, Denoise
from palinode.training.loop import Trained, train

SEED_NAMES = {"relearn": "relearn", "prompt-tuning": "prefix"}  # what an attack is called where its name feeds a seed


class TargetBatches(StepBatches[ConditionalBatch]):
    """Batches of the target's pictures with prompts that say so."""

    def __init__(self, data: ConceptData, model: Denoiser, size: int, key: tuple):
        super().__init__(key)
        self.x = data.forget
        self.total = len(model.schedule)
        self.size = size
        self.device = model.device
        self.ids = model.prompt_ids([data.prompts[i] for i in data.forget_prompt.tolist()])

    def draw(self, generator: torch.Generator, step: int) -> ConditionalBatch:
        rows = draw_rows(len(self.x), self.size, generator)
        t, eps = draw_noise((self.size, *self.x.shape[1:]), self.total, generator)
        return ConditionalBatch(
            x=self.x[rows].to(self.device),
            t=t.to(self.device),
            eps=eps.to(self.device),
            prompt=self.ids[rows.to(self.device)],
        )


def run_attack(
    model: Denoiser,
    data: ConceptData,
    settings: AttackConcept,
    key: tuple,
    draw: Callable[[Denoiser], np.ndarray],
    scratch: Scratch,
    label: str,
) -> tuple[np.ndarray, list[dict]]:
    """Attack a model, in place: (pictures uint8 [1 + S, N, H, W, C], the history of `train`).

    The pictures are what `draw` draws with it before the first step and after each of budget.steps. key: of all
    randomness but that of `draw`. UserError where a prompt leaves no room for free embeddings.
    """
    attacked, net = _prepare(model, settings, seeds.generator(*key, "init"))
    batches = TargetBatches(data, attacked, settings.training.batch, key)
    watch = Watch(lambda: draw(attacked), scratch)
    watch(0)

    def watch_chosen(step: int) -> None:
        if step in settings.budget.steps:
            watch(step)

    trained = Trained(net, attacked.nfe)
    history = train(trained, Denoise(attacked), batches, settings.training, scratch, label, watch_chosen)
    return watch.drawn, history


def _prepare(model: Denoiser, settings: AttackConcept, generator: torch.Generator) -> tuple[Denoiser, torch.nn.Module]:
    """(the model under attack, what of it trains)."""
    model.freeze()
    if isinstance(settings.budget, PromptTuning):
        tuned = free_prompts(model, settings.budget.vectors, settings.target, generator)
        return tuned, torch.nn.ParameterList([tuned.vectors])
    return model, model.net.requires_grad_(True)


@torch.inference_mode()
def translate(latents: Tensor, base: Denoiser, model: Denoiser) -> Tensor:
    """The base's latents [N, ...] in the space of another model, since an oracle has an autoencoder of its own."""
    parts = [model.encode_all(base.decode(part.to(base.device)).clamp(-1, 1)) for part in latents.split(64)]
    return torch.cat(parts)
