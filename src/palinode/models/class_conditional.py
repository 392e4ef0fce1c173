"""Class-conditional pixel models: a UNet2DModel with one embedding a class and one for "no class"."""

import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.models import unconditional
from palinode.models.denoiser import Diffuser


class ClassConditional(Diffuser):
    """eps_theta(x_t, t, y), y int64 in 0..classes; y = classes stands for "no class".

    With fixed y it is sampled through `guidance.Guided`, like a text-to-image model with fixed prompts.
    """

    @property
    def classes(self) -> int:
        """The number of classes, without "no class"."""
        return self.net.config.num_class_embeds - 1

    def prompt_ids(self, prompts: list) -> Tensor:
        """Class numbers (None: no class) to y [B]; UserError for a class the model does not have."""
        wrong = [c for c in prompts if c is not None and not 0 <= c < self.classes]
        if wrong:
            raise UserError(f"class {wrong[0]} does not exist: the model has 0 to {self.classes - 1}")
        return torch.tensor([self.classes if c is None else c for c in prompts], device=self.device)

    def parse_prompt(self, text: str) -> int | None:
        return int(text) if text else None

    def _condition_kwargs(self, condition: Tensor | None) -> dict[str, Tensor]:
        return {} if condition is None else {"class_labels": condition}


def wrap(model: Diffuser, source: str = "the model") -> ClassConditional:
    """A loaded model as class-conditional; UserError when its network knows no classes."""
    if not model.net.config.num_class_embeds:
        raise UserError(f"{source} is not class-conditional: its UNet has no num_class_embeds")
    return ClassConditional(model.net, model.schedule, model.config, model.precision)


def create(config: dict, scheduler: dict, classes: int, seed: int) -> ClassConditional:
    """A fresh model for `classes` classes; the initial weights depend on the seed alone.

    config: arguments of UNet2DModel beside the classes.
    """
    return wrap(unconditional.create(config | {"num_class_embeds": classes + 1}, scheduler, seed))
