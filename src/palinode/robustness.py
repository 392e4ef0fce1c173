"""Two small attacks on a model that should have forgotten: is the target gone, or only hard to reach?

relearn: fine-tune all weights of the denoiser on the target's pictures. prefix: leave every weight as it is and
optimise a few free embeddings in front of the target's prompts, one set for all prompts. Both minimise the denoising
loss

    min E_{x of the target} E_{t,eps} ||eps - eps_theta(x_t, t, c)||^2

over theta or over what c is made of. The second is UnlearnDiffAtk's objective (section 6 of the DoCo digest) with free
embeddings in the place of words of the vocabulary, an upper bound on what words of that number can do; unlike there,
nothing is optimised for a single prompt, and no judge says when to stop. A class has no prompt: our analogue is one
free vector in the place of the target's class embedding. It is told from the target's pictures alone, so what the
retrained model draws with it is what the vector taught, not what the model knew.

The attacker knows weights, pictures and prompts that unlearning was given, and never sees the judge or the noise that
the judged pictures start from. The budget is small: what comes back is a lower bound on what an attacker can get.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        table = model.text_encoder.get_input_embeddings().weight
        chosen = torch.randint(len(table), (count,), generator=generator).to(table.device)
        self.vectors = torch.nn.Parameter(table.detach()[chosen].clone())
        self.start = self.tokenizer.bos_token_id

    def tokens(self, prompts: list[str]) -> Tensor:
        """Token ids, int64 [B, L]; further start tokens, which no prompt has, keep the prefix's places.

        UserError for a prompt that is too long with the prefix.
        """
        ids, count = super().tokens(prompts), len(self.vectors)
        room = ids.new_full((len(ids), count), self.start)
        for prompt in prompts:
            needed, longest = len(self.tokenizer(prompt).input_ids) + count, ids.shape[1]
            if prompt != self.nothing and needed > longest:
                reason = f"needs {needed} tokens with the prefix, the text encoder takes {longest}"
                raise UserError(f"robustness.prefix.vectors: the prompt {prompt!r} {reason}")
        longer = torch.cat([ids[:, :1], room, ids[:, 1 : ids.shape[1] - count]], 1)
        empty = torch.tensor([prompt == self.nothing for prompt in prompts], device=ids.device)
        return torch.where(empty[:, None], ids, longer)

    def states(self, given: Tensor) -> Tensor:
        """As of a model without a prefix, [B, L, D]."""

        def place(ids: Tensor) -> Tensor:
            position = torch.arange(ids.shape[1], device=ids.device) - 1
            return torch.where((ids == self.start) & (position >= 0), position, -1)

        with looked_up(self.vectors, self.text_encoder.get_input_embeddings(), place):
            return super().states(given)


class Revectored(ClassConditional):
    """A class-conditional model with a free vector in the place of one class's embedding.

    vectors: Parameter [1, D], at first that embedding.
    """

    def __init__(self, model: ClassConditional, target: int):
        super().__init__(model.net, model.schedule, model.config, model.precision)
        self.target = target
        self.vectors = torch.nn.Parameter(model.net.class_embedding.weight.detach()[[target]].clone())

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        with looked_up(self.vectors, self.net.class_embedding, lambda y: (y == self.target).long() - 1):
            return super().predict(x_t, t, condition)


@contextmanager
def looked_up(vectors: Tensor, layer: torch.nn.Module, place: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Meanwhile an embedding layer looks up vectors[place(ids)] wherever place(ids) is not negative."""

    def replace(_, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        index = place(inputs[0])
        return torch.where((index < 0)[..., None], embedded, vectors[index.clamp_min(0)])

    handle = layer.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def relearn(model: Diffuser, settings, generator: torch.Generator) -> tuple[Diffuser, torch.nn.Module]:
    """(the model, what of it trains): all weights of the denoiser."""
    _freeze(model)
    return model, model.net.requires_grad_(True)


def prefix(model: Diffuser, settings, generator: torch.Generator) -> tuple[Diffuser, torch.nn.Module]:
    """(the model as it is attacked, what trains): free embeddings alone. settings: target, budget.vectors."""
    _freeze(model)
    if isinstance(model, TextToImage):
        attacked = Prefixed(model, settings.budget.vectors, generator)
    else:
        attacked = Revectored(model, settings.target)
    return attacked, torch.nn.ParameterList([attacked.vectors])


ATTACKS = {"relearn": relearn, "prefix": prefix}


def _freeze(model: Diffuser) -> None:
    for part in (model.net, model.text_encoder) if isinstance(model, TextToImage) else (model.net,):
        part.requires_grad_(False)


class TargetBatches:
    """Batches of the target's pictures x [N, ...] with prompts that say so, drawn with replacement; a step's batch
    depends on its number alone."""

    def __init__(self, x: Tensor, prompts: list, model: Diffuser, size: int, key: tuple):
        self.x, self.total, self.size, self.key, self.device = x, len(model.schedule), size, key, model.device
        self.given = model.tokens(prompts) if isinstance(model, TextToImage) else model.condition(prompts)

    def __call__(self, step: int) -> Iterator[ConditionalBatch]:
        generator = seeds.generator(*self.key, step)
        rows = torch.randint(len(self.x), (self.size,), generator=generator)
        t, eps = draw_noise((self.size, *self.x.shape[1:]), self.total, generator)
        x, t, eps, rows = (v.to(self.device) for v in (self.x[rows], t, eps, rows))
        yield ConditionalBatch(x, t, eps, self.given[rows])


def run(
    attack: str,
    model: Diffuser,
    data: ConceptData,
    settings,
    key: tuple,
    draw: Callable[[Diffuser], np.ndarray],
    scratch: Scratch,
    label: str,
) -> tuple[np.ndarray, list[dict]]:
    """Attack a model (in place): (pictures drawn before the first step and after each of budget.steps, uint8
    [1 + S, N, H, W, C]; the history of `train`).

    attack: a key of ATTACKS; settings: budget and training (`params.robustness.Attack`), target; key: of all randomness
    but the pictures'; draw: the pictures that are judged. UserError as `Prefixed.tokens`.
    """
    attacked, net = ATTACKS[attack](model, settings, seeds.generator(*key, "init"))
    prompts = [data.prompts[i] for i in data.target.tolist()]
    batches = TargetBatches(data.a, prompts, attacked, settings.training.batch, key)
    watch = Watch(attacked, draw, scratch)

    def some(step: int) -> None:
        if step in settings.budget.steps:
            watch(step)

    watch(0)
    trained = Trained(net, attacked.passes)
    history = train(trained, Denoise(attacked), batches, settings.training, scratch, label, some)
    return watch.drawn, history


@torch.inference_mode()
def translated(latents: Tensor, base: Diffuser, model: Diffuser) -> Tensor:
    """The base's latents [N, ...] in the space of another model, since an oracle has an autoencoder of its own."""
    if not isinstance(model, TextToImage):
        return latents
    parts = latents.split(64)
    return torch.cat([encoded(model, base.decode(part.to(base.device)).clamp(-1, 1)) for part in parts])
