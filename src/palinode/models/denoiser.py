"""What every diffusion model is to the rest of the package: a noise predictor with its conditions and its schedule.

Unconditional, class-conditional and text-to-image models all keep the protocol `Denoiser`. Only this folder knows which
of them a model is.
"""

import copy
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.models.schedule import Schedule

Prompt = str | int | None  # a text, a class, or no class


class NoisePredictor(Protocol):
    """What a sampler needs: eps_theta(x_t, t) without a condition, and the shape of x."""

    schedule: Schedule
    shape: tuple[int, int, int]

    @property
    def device(self) -> torch.device: ...

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor: ...


class Denoiser(Protocol):
    """A noise predictor eps_theta(x_t, t, c) with its schedule and its space.

    net: the network that is trained; config: scheduler_config.json; shape: (C, H, W) of what the network sees, a latent
    where there is an autoencoder; precision: "fp32" or "bf16"; nfe: samples sent forward and backward through the
    network since the last reset, so that the cost of a method is counted where it arises; null_prompt: the prompt that
    guidance starts from.
    """

    net: Any
    schedule: Schedule
    config: dict
    shape: tuple[int, int, int]
    precision: str
    nfe: dict[str, int]
    null_prompt: Prompt

    @property
    def device(self) -> torch.device: ...

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_t [B, C, H, W]; t [B], int64 or float labels in [0, T-1]; float32 [B, C, H, W]."""
        ...

    def condition(self, prompts: list) -> Tensor:
        """Prompts to what `predict` takes, [B, ...]; UserError for a prompt that the model cannot take."""
        ...

    def prompt_ids(self, prompts: list) -> Tensor:
        """Prompts to integers, [B, ...], from which `states` makes conditions."""
        ...

    def states(self, ids: Tensor) -> Tensor:
        """`prompt_ids` to what `predict` takes."""
        ...

    def parse_prompt(self, text: str) -> Prompt:
        """The prompt that a caption's text stands for; an empty text stands for the null prompt."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] to the space of the network."""
        ...

    def encode_all(self, images: Tensor, chunk: int = 256) -> Tensor:
        """`encode`, in chunks, on the CPU."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`, nominally in [-1, 1]."""
        ...

    def frozen(self) -> Self:
        """A copy that does not train; its evaluations are counted with this one's."""
        ...

    def freeze(self) -> None:
        """Let nothing of the model train."""
        ...

    def trainable(self) -> list[torch.nn.Parameter]:
        """The parameters that train, in the network's order."""
        ...

    def weights(self) -> Tensor:
        """All of `trainable` as one vector, differentiable."""
        ...

    def trained(self, vector: Tensor) -> Tensor:
        """The part of a vector over all parameters that belongs to `trainable`."""
        ...


class Diffuser:
    """A `Denoiser` on pixels that takes no condition, and what the other kinds share."""

    null_prompt: Prompt = None

    def __init__(self, net: Any, schedule: Schedule, config: dict, precision: str = "fp32"):
        self.net = net
        self.schedule = schedule
        self.config = config
        self.precision = precision
        size = net.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.shape: tuple[int, int, int] = (net.config.in_channels, height, width)
        self.nfe = {"forward": 0, "backward": 0}

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            eps = self.net(x_t, t, **self._condition_kwargs(condition)).sample.float()
        self.nfe["forward"] += len(x_t)
        if eps.requires_grad:
            eps.register_hook(self._count_backward)
        return eps

    def condition(self, prompts: list) -> Tensor:
        return self.states(self.prompt_ids(prompts))

    def prompt_ids(self, prompts: list) -> Tensor:
        raise UserError("an unconditional model takes no prompts")

    def states(self, ids: Tensor) -> Tensor:
        return ids

    def parse_prompt(self, text: str) -> Prompt:
        return None

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    @torch.inference_mode()
    def encode_all(self, images: Tensor, chunk: int = 256) -> Tensor:
        return torch.cat([self.encode(part.to(self.device)).cpu() for part in images.split(chunk)])

    def frozen(self) -> Self:
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net).requires_grad_(False)
        return other

    def freeze(self) -> None:
        self.net.requires_grad_(False)

    def trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.net.parameters() if p.requires_grad]

    def weights(self) -> Tensor:
        return torch.cat([p.flatten() for p in self.trainable()])

    def trained(self, vector: Tensor) -> Tensor:
        pieces = vector.split([p.numel() for p in self.net.parameters()])
        return torch.cat([v for v, p in zip(pieces, self.net.parameters(), strict=True) if p.requires_grad])

    def _condition_kwargs(self, condition: Tensor | None) -> dict[str, Tensor]:
        """The condition under the name that the network has for it."""
        return {}

    def _count_backward(self, gradient: Tensor) -> None:
        self.nfe["backward"] += len(gradient)


TRAINABLE = {  # parts of parameter names
    "all": ("",),
    "cross-attention": ("attn2.",),
    "cross-attention-kv": ("attn2.to_k.", "attn2.to_v."),
}


def train_only(model: Denoiser, which: str) -> None:
    """Let only those parameters train: a key of TRAINABLE, or "others", as ESD's esd-u has it.

    Those are the linear and convolutional layers outside cross-attention, so that norms stay. UserError when there are
    none.
    """
    if which == "others":
        chosen = _others(model.net)
    else:
        chosen = {name for name, _ in model.net.named_parameters() if any(part in name for part in TRAINABLE[which])}
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(name in chosen)
    if not model.trainable():
        raise UserError(f"trainable: {which!r} matches no parameter of {type(model.net).__name__}")


def _others(net: torch.nn.Module) -> set[str]:
    """Names of the parameters of linear and convolutional layers outside cross-attention."""
    layers = (torch.nn.Linear, torch.nn.Conv2d)
    return {
        f"{layer}.{name}"
        for layer, module in net.named_modules()
        if isinstance(module, layers) and "attn2." not in layer
        for name, _ in module.named_parameters(recurse=False)
    }
