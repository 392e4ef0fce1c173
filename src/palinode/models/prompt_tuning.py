"""Models whose prompts begin with free embeddings, or whose class embedding is free: what prompt tuning optimises."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.models.class_conditional import ClassConditional
from palinode.models.denoiser import Denoiser
from palinode.models.text_to_image import TextToImage


class FreePrefix(TextToImage):
    """A text-to-image model whose prompts begin with free embeddings; the null prompt, for guidance, does not.

    vectors: Parameter [K, D], at first those of random tokens of the vocabulary.
    """

    def __init__(self, model: TextToImage, count: int, generator: torch.Generator):
        super().__init__(
            model.net,
            model.schedule,
            model.config,
            model.vae,
            model.text_encoder,
            model.tokenizer,
            model.precision,
        )
        self.words = model.text_encoder.get_input_embeddings()
        self.start = model.tokenizer.bos_token_id
        chosen = torch.randint(self.words.num_embeddings, (count,), generator=generator).to(model.device)
        self.vectors = torch.nn.Parameter(self.words.weight.detach()[chosen].clone())

    def prompt_ids(self, prompts: list) -> Tensor:
        """Token ids, int64 [B, L]; further start tokens, which no prompt has, keep the prefix's places.

        UserError for a prompt that is too long with the prefix.
        """
        ids = super().prompt_ids(prompts)
        count = len(self.vectors)
        for prompt in prompts:
            if prompt != self.null_prompt and len(self.tokenizer(prompt).input_ids) + count > ids.shape[1]:
                raise UserError(f"attacks.prompt_tuning.vectors: no room for {count} before the prompt {prompt!r}")
        longer = torch.cat([ids[:, :1].repeat(1, 1 + count), ids[:, 1 : ids.shape[1] - count]], 1)
        null = torch.tensor([prompt == self.null_prompt for prompt in prompts], device=ids.device)
        return torch.where(null[:, None], ids, longer)

    def states(self, ids: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1], device=ids.device) - 1
        place = torch.where((ids == self.start) & (position >= 0), position, -1)
        with _look_up(self.vectors, self.words, place):
            return super().states(ids)


class FreeClass(ClassConditional):
    """A class-conditional model with a free vector for one class. vectors: Parameter [1, D], at first its embedding."""

    def __init__(self, model: ClassConditional, target: int):
        super().__init__(model.net, model.schedule, model.config, model.precision)
        self.target = target
        self.vectors = torch.nn.Parameter(model.net.class_embedding.weight.detach()[[target]].clone())

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        with _look_up(self.vectors, self.net.class_embedding, (condition == self.target).long() - 1):
            return super().predict(x_t, t, condition)


def free_prompts(model: Denoiser, count: int, target: str | int, generator: torch.Generator) -> FreePrefix | FreeClass:
    """The model with `count` free vectors before every prompt, or with a free vector for the target's class."""
    if isinstance(model, TextToImage):
        return FreePrefix(model, count, generator)
    assert isinstance(model, ClassConditional)
    return FreeClass(model, int(target))


def _look_up(vectors: Tensor, layer: torch.nn.Module, place: Tensor) -> AbstractContextManager:
    """Meanwhile an embedding layer, asked for ids, gives vectors[place] wherever place, of their shape, is not -1."""
    free = vectors[place.clamp_min(0)]
    chosen = (place >= 0)[..., None]
    return layer.register_forward_hook(lambda _, ids, embedded: torch.where(chosen, free, embedded))
