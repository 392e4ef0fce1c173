"""Class-conditional pixel models: a UNet2DModel with one embedding a class and one for "no class", and its training."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from palinode import models, seeds
from palinode.errors import UserError
from palinode.models import Diffuser, to_model
from palinode.pretraining import ConditionalBatch, Denoise, Outcome, Watch
from palinode.scratch import Scratch
from palinode.training import train

DROP = 0.1  # share of labels replaced by "no class", for guidance


class ClassConditional(Diffuser):
    """eps_theta(x_t, t, y), y int64 in 0..classes; y = classes stands for "no class".

    With fixed y it is sampled through `guidance.Guided`, like a text-to-image model with fixed prompts. nothing: what
    guidance starts from, no class.
    """

    nothing = None

    @property
    def classes(self) -> int:
        """The number of classes, without "no class"."""
        return self.net.config.num_class_embeds - 1

    def condition(self, classes: list[int | None]) -> Tensor:
        """Class numbers (None: no class) to y [B]; UserError for a class the model does not have."""
        wrong = [c for c in classes if c is not None and not 0 <= c < self.classes]
        if wrong:
            raise UserError(f"class {wrong[0]} does not exist: the model has 0 to {self.classes - 1}")
        return torch.tensor([self.classes if c is None else c for c in classes], device=self.device)

    def _named(self, condition: Tensor) -> dict[str, Tensor]:
        return {"class_labels": condition}

    def states(self, given: Tensor) -> Tensor:
        """What `predict` takes for a batch's classes: the classes themselves."""
        return given

    def decode(self, x: Tensor) -> Tensor:
        """The images themselves: there is no latent space."""
        return x


def of(model: Diffuser, source: str = "the model") -> ClassConditional:
    """The class-conditional face of a loaded model; UserError when its network knows no classes."""
    if not model.net.config.num_class_embeds:
        raise UserError(f"{source} is not class-conditional: its UNet has no num_class_embeds")
    return ClassConditional(model.net, model.schedule, model.config, model.precision)


def create(settings: dict, scheduler: dict, classes: int, seed: int) -> ClassConditional:
    """A fresh model for `classes` classes; the initial weights depend on the seed alone."""
    return of(models.create(settings | {"num_class_embeds": classes + 1}, scheduler, seed))


class LabelledBatches:
    """Batches drawn with replacement from labelled uint8 images; a step's batch depends on its number alone."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, model: ClassConditional, size: int, key: tuple):
        self.images, self.labels, self.model, self.size, self.key = images, labels, model, size, key

    def __call__(self, step: int) -> Iterator[ConditionalBatch]:
        generator, device = seeds.generator(*self.key, step), self.model.device
        rows = torch.randint(len(self.images), (self.size,), generator=generator).numpy()
        y = torch.from_numpy(self.labels[rows]).long()
        y[torch.rand(self.size, generator=generator) < DROP] = self.model.classes
        x = to_model(self.images[rows])
        t = torch.randint(len(self.model.schedule), (self.size,), generator=generator)
        eps = torch.randn(x.shape, generator=generator)
        yield ConditionalBatch(*(v.to(device) for v in (x, t, eps, y)))


def pretrain(
    images: np.ndarray,
    labels: np.ndarray,
    settings,
    scratch: Scratch,
    device,
    label: str,
    preview: Callable[[ClassConditional], np.ndarray],
    without: int | None = None,
) -> Outcome:
    """Train on labelled uint8 images [N, H, W, C]; without: a class that an oracle never sees.

    settings: root_seed, task, model, scheduler, pretrain (`params.Training`). preview: draws with the unfinished model.
    Initial weights, time steps and noise are the same for base and oracle. UserError when no image has that class.
    """
    key, classes = (settings.root_seed, settings.task, "pretrain"), int(labels.max()) + 1
    kept = labels != without
    if without is not None and kept.all():
        raise UserError(f"classes.oracles: no image has the class {without}")
    config = settings.model | {"sample_size": images.shape[1], "in_channels": images.shape[3],
                               "out_channels": images.shape[3]}  # fmt: skip
    model = create(config, settings.scheduler, classes, seeds.derive(*key, "init"))
    model.net.to(device)
    model.precision = settings.pretrain.precision
    batches = LabelledBatches(images[kept], labels[kept], model, settings.pretrain.batch, key)
    watch = Watch(model, preview, scratch)
    history = train(model, Denoise(model), batches, settings.pretrain, scratch, label, watch)
    return Outcome(model, {"denoiser": history}, watch.drawn)
