"""Two small attacks on a model that should have forgotten: is the target gone, or only hard to reach?

relearn: fine-tune all weights of the denoiser on the target's pictures. prefix: leave every weight as it is and
optimise a few free embeddings in front of the target's prompts, one set for all prompts. Both minimise

    E_{x of the target} E_{t,eps} ||eps - eps_theta(x_t, t, c)||^2

over theta or over what c is made of. The second is UnlearnDiffAtk's objective (DoCo digest, section 6) with free
embeddings for words, an upper bound on what as many words can do; unlike there, nothing is fitted to a single prompt
and no judge says when to stop. A class has no prompt: our analogue is a free vector for the target's class embedding.
What the retrained model draws with it is what the pictures taught the vector, not what the model knew.

Attackers have weights, pictures and prompts that unlearning was given, and never see the judge or the noise of judged
pictures. Their budget is small: what comes back is a lower bound on what an attacker can get.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.class_conditional import ClassConditional
from palinode.concept import ConceptData
from palinode.errors import UserError
from palinode.models import Diffuser
from palinode.pretraining import ConditionalBatch, Denoise, Watch
from palinode.scratch import Scratch
from palinode.text_pretraining import encoded
from palinode.text_to_image import TextToImage
from palinode.training import Trained, draw_noise, train


class Prefixed(TextToImage):
    """A text-to-image model whose prompts begin with free embeddings; the empty prompt, for guidance, does not.

    vectors: Parameter [K, D], at first those of random tokens of the vocabulary.
    """

    def __init__(self, model: TextToImage, count: int, generator: torch.Generator):
        parts = (model.vae, model.text_encoder, model.tokenizer, model.precision)
        super().__init__(model.net, model.schedule, model.config, *parts)
        self.words, self.start = model.text_encoder.get_input_embeddings(), model.tokenizer.bos_token_id
        chosen = torch.randint(self.words.num_embeddings, (count,), generator=generator).to(model.device)
        self.vectors = torch.nn.Parameter(self.words.weight.detach()[chosen].clone())

    def tokens(self, prompts: list[str]) -> Tensor:
        """Token ids, int64 [B, L]; further start tokens, which no prompt has, keep the prefix's places.

        UserError for a prompt that is too long with the prefix.
        """
        ids, count = super().tokens(prompts), len(self.vectors)
        for prompt in prompts:
            if prompt != self.nothing and len(self.tokenizer(prompt).input_ids) + count > ids.shape[1]:
                raise UserError(f"robustness.prefix.vectors: no room for {count} before the prompt {prompt!r}")
        longer = torch.cat([ids[:, :1].repeat(1, 1 + count), ids[:, 1 : ids.shape[1] - count]], 1)
        empty = torch.tensor([prompt == self.nothing for prompt in prompts], device=ids.device)
        return torch.where(empty[:, None], ids, longer)

    def states(self, given: Tensor) -> Tensor:
        position = torch.arange(given.shape[1], device=given.device) - 1
        place = torch.where((given == self.start) & (position >= 0), position, -1)
        with looked_up(self.vectors, self.words, place):
            return super().states(given)


class Revectored(ClassConditional):
    """A class-conditional model with a free vector for one class. vectors: Parameter [1, D], at first its embedding."""

    def __init__(self, model: ClassConditional, target: int):
        super().__init__(model.net, model.schedule, model.config, model.precision)
        self.target = target
        self.vectors = torch.nn.Parameter(model.net.class_embedding.weight.detach()[[target]].clone())

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        with looked_up(self.vectors, self.net.class_embedding, (condition == self.target).long() - 1):
            return super().predict(x_t, t, condition)


def looked_up(vectors: Tensor, layer: torch.nn.Module, place: Tensor) -> AbstractContextManager:
    """Meanwhile an embedding layer, asked for ids, gives vectors[place] wherever place, of their shape, is not -1."""
    found, given = vectors[place.clamp_min(0)], (place >= 0)[..., None]
    return layer.register_forward_hook(lambda _, ids, embedded: torch.where(given, found, embedded))


def prepared(attack: str, model: Diffuser, settings, generator: torch.Generator) -> tuple[Diffuser, torch.nn.Module]:
    """(the model under attack, what of it trains). settings: target, budget.vectors."""
    text = isinstance(model, TextToImage)
    for part in (model.net, model.text_encoder) if text else (model.net,):
        part.requires_grad_(False)
    if attack == "relearn":
        return model, model.net.requires_grad_(True)
    face = Prefixed(model, settings.budget.vectors, generator) if text else Revectored(model, settings.target)
    return face, torch.nn.ParameterList([face.vectors])


class TargetBatches:
    """Batches of the target's pictures with prompts that say so; a step's batch depends on its number alone."""

    def __init__(self, data: ConceptData, model: Diffuser, size: int, key: tuple):
        self.x, self.total, self.size, self.key, self.device = data.a, len(model.schedule), size, key, model.device
        prompts = [data.prompts[i] for i in data.target.tolist()]
        self.given = model.tokens(prompts) if isinstance(model, TextToImage) else model.condition(prompts)

    def __call__(self, step: int) -> Iterator[ConditionalBatch]:
        generator = seeds.generator(*self.key, step)
        rows = torch.randint(len(self.x), (self.size,), generator=generator)
        t, eps = draw_noise((self.size, *self.x.shape[1:]), self.total, generator)
        x, t, eps, rows = (v.to(self.device) for v in (self.x[rows], t, eps, rows))
        yield ConditionalBatch(x, t, eps, self.given[rows])


def run(
    attack: str, model: Diffuser, data: ConceptData, settings, key: tuple, draw: Callable, scratch: Scratch, label: str
) -> tuple[np.ndarray, list[dict]]:
    """Attack a model, in place: (what `draw` draws with it before the first step and after each of budget.steps, uint8
    [1 + S, N, H, W, C]; the history of `train`). UserError as `Prefixed.tokens`.

    settings: budget (`params.robustness`), training, target; key: of all randomness but that of `draw`.
    """
    face, net = prepared(attack, model, settings, seeds.generator(*key, "init"))
    batches = TargetBatches(data, face, settings.training.batch, key)
    trained, watch = Trained(net, face.passes), Watch(face, draw, scratch)
    watch(0)
    history = train(trained, Denoise(face), batches, settings.training, scratch, label,
                    lambda step: watch(step) if step in settings.budget.steps else None)  # fmt: skip
    return watch.drawn, history


@torch.inference_mode()
def translated(latents: Tensor, base: Diffuser, model: Diffuser) -> Tensor:
    """The base's latents [N, ...] in the space of another model, since an oracle has an autoencoder of its own."""
    if not isinstance(model, TextToImage):
        return latents
    return torch.cat([encoded(model, base.decode(some.to(base.device)).clamp(-1, 1)) for some in latents.split(64)])
