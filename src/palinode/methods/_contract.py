"""What a method is to the rest of the package: what it asks for, what it is given, what it returns."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from palinode.models.denoiser import Denoiser

# The words of `needs`, each with plain words for an error message. A kind of task says which of them it offers.
NEEDS = {
    "unconditional": "a model that predicts without a condition",
    "anchor": "an anchor that takes the target's place",
    "trajectory": "sampling trajectories of the original model under the target's prompts",
    "saliency": "the gradient's size on what is forgotten, for every weight",
    "fisher": "the Fisher information of what is kept, for every weight",
    "neighbours": "the retained pictures nearest to each picture to forget",
    "text": "prompts, and the text states that the model reads them as",
}

# The names a loss may have: columns of training.csv (`loss_retain`), and what a plot means by "retain loss".
LOSSES = {
    "retain": "on what is kept: the lower, the less it is harmed",
    "forget": "on what is forgotten; whether it falls or rises is the method's own",
    "anchor": "the denoising loss on pictures of the anchor",
    "adversary": "what a discriminator of target and anchor makes of the target's predictions",
    "combined": "retain minus superfactor times forget, where one backward pass serves both",
    "penalty": "the distance of the weights from where they started, each weighed by its importance",
}


@dataclass(frozen=True)
class Source:
    """Where a method comes from, as METHODS.md shows it.

    paper: authors and title; arxiv: its id, as in "2503.01034"; equation: what of it is implemented, with the number
    where it is known; repository: "owner/name at commit", the official code that behaviour was compared with; compared:
    what running both gave, a sentence each.
    """

    paper: str
    arxiv: str = ""
    venue: str = ""
    equation: str = ""
    repository: str = ""
    compared: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


class BatchLike(Protocol):
    """What a method may use of a micro-batch.

    x, a: retain and forget images [B, C, H, W]; t: int64 [B] in 0..total-1; eps: like x, ~ N(0, I); u: [B] ~ U[0, 1);
    c_x, c_a: the conditions of x and a, None where the model takes none; neighbours: the retained images nearest to
    each of a, [B, K, C, H, W], for a method that needs them. All further draws come from `generator`.
    """

    x: Tensor
    a: Tensor
    t: Tensor
    eps: Tensor
    u: Tensor
    total: int
    generator: torch.Generator
    c_x: Tensor | None
    c_a: Tensor | None
    neighbours: Tensor | None

    def redraw(self) -> tuple[Tensor, Tensor]:
        """An independent (t, eps)."""
        ...

    def uniform(self) -> Tensor:
        """An independent tensor like x, ~ U[0, 1)."""
        ...


class ConceptBatchLike(BatchLike, Protocol):
    """What there is besides, for a method that needs an anchor or trajectories.

    anchor: pictures that the original model draws under c_anchor, the prompts of c_a with the anchor in the target's
    place; c_null: the condition of the null prompt, one row.
    """

    anchor: Tensor
    c_anchor: Tensor
    c_null: Tensor

    def trajectory_states(self, model: Denoiser, guidance: float) -> tuple[Tensor, Tensor]:
        """States of fresh sampling trajectories of a model under c_a, each stopped at random: (z_t like a, t [B])."""
        ...


class Method:
    """The base of all methods; it has no options of its own.

    closed_form: the method edits the weights by `edit` instead of taking steps. source: where it comes from.
    """

    closed_form: ClassVar[bool] = False
    source: ClassVar[Source | None] = None

    @property
    def needs(self) -> frozenset[str]:
        """Words of NEEDS. A class overrides it by a plain attribute, or by a property where its options decide."""
        return frozenset()

    def begin(self, model: Denoiser, statistics: dict[str, Any]) -> None:
        """Called once before the first step. statistics: "seed", and "saliency" and "fisher" where they are needed."""

    def losses(self, model: Denoiser, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses of one micro-batch, each to be differentiated by itself; the names are words of LOSSES.

        batch: a `BatchLike`, or a `ConceptBatchLike` where the task offers an anchor. Losses are sums over pixels and
        means over the batch, as in the SISS authors' code.
        """
        raise TypeError(f"{type(self).__name__} defines no losses")

    def combine(self, grads: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, float]]:
        """(descent direction, numbers to log), called once an optimiser step.

        grads: one flat gradient a loss, over all trained parameters; the direction may overwrite one of them. None for
        the direction leaves the weights as they are.
        """
        raise TypeError(f"{type(self).__name__} defines no combine")

    def after_step(self) -> None:
        """Called after every optimiser step."""

    def edit(self, model: Any, names: dict[str, list[str]]) -> None:
        """The edit of a method in closed form.

        names: prompts that end in the name of "target", "anchor", "kept"; the same in the templates of the training
        prompts: "target_in_templates" and so on, target and anchor pair by pair.
        """
        raise TypeError(f"{type(self).__name__} defines no edit")

    def state_dict(self) -> dict[str, Any]:
        """What a method with a state of its own adds to a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The opposite of `state_dict`."""
