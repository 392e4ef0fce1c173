"""Training a class-conditional base, or an oracle that never saw one class."""

import numpy as np
import torch
from torch import Tensor

from palinode.bases.progress import Outcome, Watch
from palinode.core import seeds
from palinode.core.images import to_model
from palinode.core.io import read_array, read_json
from palinode.core.work import Work
from palinode.models import class_conditional, loading
from palinode.models.class_conditional import ClassConditional
from palinode.models.denoiser import Prompt
from palinode.params.stage_settings import PretrainClasses
from palinode.sampling import prompted
from palinode.training.batches import StepBatches, draw_noise, draw_rows
from palinode.training.denoising import ConditionalBatch, Denoise
from palinode.training.loop import train

DROP = 0.1  # share of labels replaced by "no class", for guidance
GUIDANCE = 2.0  # of the pictures drawn while training
STEPS = 20


class LabelledBatches(StepBatches[ConditionalBatch]):
    """Batches drawn with replacement from labelled uint8 images [N, H, W, C]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, model: ClassConditional, size: int, key: tuple):
        super().__init__(key)
        self.images = images
        self.labels = labels
        self.model = model
        self.size = size

    def draw(self, generator: torch.Generator, step: int) -> ConditionalBatch:
        rows = draw_rows(len(self.images), self.size, generator).numpy()
        classes = torch.from_numpy(self.labels[rows]).long()
        classes[torch.rand(self.size, generator=generator) < DROP] = self.model.classes
        x = to_model(self.images[rows])
        t, eps = draw_noise(x.shape, len(self.model.schedule), generator)
        tensors: list[Tensor] = [v.to(self.model.device) for v in (x, t, eps, classes)]
        return ConditionalBatch(*tensors)


def run(work: Work) -> None:
    """Write model/ (fp16) and training/. Initial weights, time steps and noise are the same for base and oracle."""
    settings = work.settings(PretrainClasses)
    data = work.inputs[1]
    images = read_array(data / "train.npy")
    labels = read_array(data / "train-labels.npy")
    key = (settings.root_seed, settings.name, "pretrain")
    channels = images.shape[3]
    config = settings.model | {"sample_size": images.shape[1], "in_channels": channels, "out_channels": channels}
    classes = read_json(data / "metadata.json")["classes"]
    model = class_conditional.create(config, settings.scheduler, classes, seeds.derive(*key, "init"))
    model.net.to(work.device)
    model.precision = settings.pretrain.precision
    prompts: list[Prompt] = [*range(classes), None, None]

    def preview() -> np.ndarray:
        return prompted.draw(model, prompts, (settings.root_seed, settings.name), GUIDANCE, STEPS)

    with work.scratch() as scratch:
        watch = Watch(preview, scratch)
        batches = LabelledBatches(images, labels, model, settings.pretrain.batch, key)
        history = train(model, Denoise(model), batches, settings.pretrain, scratch, work.name, watch)
        model_folder, log_folder = work.outputs
        loading.save(model, model_folder, torch.float16)
        Outcome(model, {"denoiser": history}, watch.drawn).write_progress(log_folder)
