"""The judge of captioned scenes: which concept and which style a picture shows, with "none of these" for each.

It sees the drawings that a base model sees, since there are no others of these things in these styles. But it sees them
in an augmentation stream of its own, beside pictures of "none", and is never a training signal. It cannot judge
composition, count or background, nor tell a good drawing of a cat from a poor one that is still a cat.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from palinode.classifiers.scene_pictures import Labelled, Stream
from palinode.core import seeds
from palinode.core.scratch import Scratch
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus
from palinode.params.fields import Training
from palinode.training import loop
from palinode.training.denoising import OneLoss
from palinode.training.loop import Trained

WIDTHS = (3, 64, 128, 192)
CALIBRATION_IMAGES = 1024


class SceneJudge(nn.Module):
    """Three convolutions, one hidden layer, two heads. RGB [B, 3, 32, 32] in [-1, 1]; the last class is "none"."""

    temperature: Tensor

    def __init__(self, concepts: int, styles: int):
        super().__init__()
        self.config: dict[str, Any] = {"concepts": concepts, "styles": styles}
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4 if a == 3 else 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(WIDTHS)
        )
        self.hidden = nn.Sequential(nn.Linear(WIDTHS[-1] * 16, 128), nn.ReLU())
        self.concept = nn.Linear(128, concepts + 1)
        self.style = nn.Linear(128, styles + 1)
        self.register_buffer("temperature", torch.ones(2))

    def layers(self, x: Tensor) -> list[Tensor]:
        """The activations after each convolution, [B, 64 to 192, h, w]."""
        activations = []
        for block in self.blocks:
            x = block(x)
            activations.append(x)
        return activations

    def features(self, x: Tensor) -> Tensor:
        """The hidden layer, [B, 128]."""
        return self.hidden(self.layers(x)[-1].flatten(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logits of concept [B, concepts + 1] and style [B, styles + 1]."""
        features = self.features(x)
        return self.concept(features) / self.temperature[0], self.style(features) / self.temperature[1]


class Classify(OneLoss):
    """Cross-entropy of both heads."""

    def losses(self, model: Any, batch: Labelled) -> dict[str, Tensor]:
        images = batch.images.to(memory_format=torch.channels_last)  # half the time, on a CPU
        concept, style = model.net(images)
        return {"objective": cross_entropy(concept, batch.concept) + cross_entropy(style, batch.style)}


def train(
    corpus: EmojiCorpus, others: Tensor, key: tuple[str | int, ...], settings: Training, scratch: Scratch
) -> SceneJudge:
    """Train and calibrate a judge."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*key, "init"))
        judge = SceneJudge(len(corpus.concepts), len(STYLES))
    stream = Stream(corpus, others, settings.batch, (*key, "train"))
    loop.train(Trained(judge, {}), Classify(), lambda step: iter([stream(step)]), settings, scratch, "judge")
    judge.eval()
    _calibrate(judge, Stream(corpus, others, CALIBRATION_IMAGES, (*key, "calibrate")))
    return judge


@torch.no_grad()
def _calibrate(judge: SceneJudge, stream: Stream) -> None:
    """Temperature scaling: one number a head, the best of a grid on pictures that were not trained on."""
    grid = torch.linspace(-1, 1, 81).exp()
    batch = stream(0)
    logits = judge(batch.images)
    for head, labels in enumerate((batch.concept, batch.style)):
        losses = [cross_entropy(logits[head] / t, labels) for t in grid]
        judge.temperature[head] = grid[int(torch.stack(losses).argmin())]


@torch.inference_mode()
def accuracy(judge: SceneJudge, stream: Stream, batches: int) -> dict[str, float]:
    """Shares classified right, and the mean confidence of each head (equal to its share when calibrated)."""
    correct = torch.zeros(2)
    confidence = torch.zeros(2)
    count = 0
    for step in range(batches):
        batch = stream(step)
        for head, (logits, labels) in enumerate(zip(judge(batch.images), (batch.concept, batch.style), strict=True)):
            best = logits.softmax(1).max(1)
            correct[head] += (best.indices == labels).sum()
            confidence[head] += best.values.sum()
        count += len(batch.images)
    values = torch.cat([correct / count, confidence / count]).tolist()
    shares = dict(zip(("concept", "style", "concept_confidence", "style_confidence"), values, strict=True))
    return shares | {"images": count}


@torch.inference_mode()
def unseen_accuracy(judge: SceneJudge, stream: Stream, count: int, key: tuple[str | int, ...]) -> dict[str, float]:
    """Shares it calls "none", and names the style of, of drawings it was not trained on (a `held` stream)."""
    images, style = stream.draw_others(count, seeds.generator(*key, "unseen"))
    concept_logits, style_logits = judge(images)
    none = concept_logits.argmax(1) == judge.config["concepts"]
    named = style_logits.argmax(1) == style
    return {"none": none.float().mean().item(), "style": named.float().mean().item(), "images": count}
