"""The judge of captioned scenes: which concept and which style a picture shows, with "none of these" for each.

It sees the drawings that a base model sees, since there are no others of these things in these styles, but in an
augmentation stream of its own, and pictures of "none". It is never a training signal. It cannot judge composition,
count or background, nor tell a good drawing of a cat from a poor one that is still a cat.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from palinode import seeds, training
from palinode.data import emoji
from palinode.data.captions import BACKGROUNDS, STYLES
from palinode.data.scenes import Scenes, World
from palinode.pretraining import OneLoss
from palinode.scratch import Scratch
from palinode.training import Trained

NONE_SHARE, CROP_SHARE = 0.3, 0.15
HELD = 16  # of the drawings that stand for "none": only in the test stream


class SceneJudge(nn.Module):
    """Three convolutions, one hidden layer, two heads. RGB [B, 3, 32, 32] in [-1, 1]; the last class is "none"."""

    def __init__(self, concepts: int, styles: int):
        super().__init__()
        self.config = {"concepts": concepts, "styles": styles}
        widths = (3, 64, 128, 192)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4 if a == 3 else 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.hidden = nn.Sequential(nn.Linear(widths[-1] * 16, 128), nn.ReLU())
        self.concept, self.style = nn.Linear(128, concepts + 1), nn.Linear(128, styles + 1)
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


@dataclass
class Labelled:
    """Pictures [B, 3, 32, 32] in [-1, 1] with the classes of concept and style."""

    images: Tensor
    concept: Tensor
    style: Tensor


class Stream:
    """Endless labelled pictures; batch number `step` depends on its number and the key alone.

    others: drawings that stand for "none of these", the last HELD of them for `held` streams only; all other streams
    have the rest and the fixed pictures' drawings. Their styles take turns, without the last (data/emoji/build.py).
    """

    def __init__(self, world: World, others: Tensor, size: int, key: tuple, held: bool = False):
        self.world, self.size, self.key = world, size, key
        styles = torch.arange(len(others)) % (len(STYLES) - 1)
        if held:
            self.others, self.other_styles = others[-HELD:], styles[-HELD:]
        else:
            fixed = torch.tensor([STYLES.index(picture.style) for picture in world.pictures], dtype=torch.int64)
            self.others = torch.cat([world.fixed[: len(fixed)], others[:-HELD]])
            self.other_styles = torch.cat([fixed, styles[:-HELD]])
        self.pairs = [(i, j) for i in range(len(world.concepts)) for j in range(len(STYLES))]

    def __call__(self, step: int) -> Labelled:
        generator = seeds.generator(*self.key, step)
        none, crops = round(NONE_SHARE * self.size), round(CROP_SHARE * self.size)
        scenes = Scenes.draw(self.pairs, self.size, generator)
        scenes.right[:] = -1
        images = scenes.render(self.world, generator)
        images[none : none + crops] = self._halves(scenes, slice(none, none + crops), generator)
        concept, style = scenes.left.clone(), scenes.style.clone()
        images[:none], style[:none] = self._none(images[-none:], none, generator)
        concept[:none] = len(self.world.concepts)
        return Labelled(self._worn(images, generator), concept, style)

    def other(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Other drawings, varied, on some background, and their styles."""
        chosen = torch.randint(len(self.others), (count,), generator=generator)
        return self._placed(self.others[chosen], generator), self.other_styles[chosen]

    def _placed(self, drawings: Tensor, generator: torch.Generator) -> Tensor:
        names = torch.randint(len(BACKGROUNDS), (len(drawings),), generator=generator)
        return emoji.on_background(emoji.vary(drawings, generator), [list(BACKGROUNDS)[i] for i in names]) * 2 - 1

    def _halves(self, scenes: Scenes, rows: slice, generator: torch.Generator) -> Tensor:
        """The left thing of a picture of two, cut out and enlarged, as `halves` does."""
        left, style = scenes.left[rows], scenes.style[rows]
        drawings = emoji.beside(self.world.drawings[left, style], self.world.drawings[left.flip(0), style], generator)
        names = [list(BACKGROUNDS)[i] for i in scenes.background[rows]]
        return halves(emoji.on_background(drawings, names) * 2 - 1)[0]

    def _none(self, scenes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures of none of the things, and their styles.

        Two fifths other drawings; a fifth each half of one thing and half of another in its style, as a failed drawing
        may be; the rest, in no style: blends of two scenes, coarse colour noise, scenes too blurred to tell.
        """
        part, none = count // 5, len(STYLES)
        other, style = self.other(count - 3 * part, generator)
        table = torch.tensor(self.pairs)
        (one, joined), (two, _) = (table[torch.randint(len(table), (part,), generator=generator)].T for _ in range(2))
        half = self.world.drawings.shape[-1] // 2
        left, right = (self.world.drawings[which, joined] for which in (one, two))
        chimeras = self._placed(torch.cat([left[..., :half], right[..., half:]], -1), generator)
        blends = (scenes[:part] + scenes[-part:]) / 2
        cells = torch.rand(part // 2, 3, 8, 8, generator=generator) * 2 - 1
        noise = nn.functional.interpolate(cells, scale_factor=4.0, mode="bilinear")
        coarse = nn.functional.avg_pool2d(scenes[: part - part // 2], 8)
        blurred = nn.functional.interpolate(coarse, scale_factor=8.0)
        images = torch.cat([other, chimeras, blends, noise, blurred])
        return images, torch.cat([style, joined, torch.full((len(images) - len(style) - part,), none)])

    def _worn(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A third slightly blurred, all slightly noisy: a drawn picture is never as clean as its source."""
        soft = nn.functional.avg_pool2d(nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        blurred = torch.rand(len(images), 1, 1, 1, generator=generator) < 1 / 3
        level = torch.rand(len(images), 1, 1, 1, generator=generator) * 0.1
        return torch.where(blurred, soft, images) + level * torch.randn(images.shape, generator=generator)


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right thing of pictures of two [B, 3, 32, 32], each enlarged to the full size."""
    middle = images[:, :, 8:24]
    left, right = (nn.functional.interpolate(half, scale_factor=2.0, mode="bilinear") for half in middle.split(16, 3))
    return left, right


class Classify(OneLoss):
    """Cross-entropy of both heads."""

    def losses(self, model, batch: Labelled):
        images = batch.images.to(memory_format=torch.channels_last)  # half the time, on a CPU
        concept, style = model.net(images)
        return {"x": cross_entropy(concept, batch.concept) + cross_entropy(style, batch.style)}


def train(world: World, others: Tensor, key: tuple, settings, scratch: Scratch) -> SceneJudge:
    """Train and calibrate a judge; settings: the fields of `params.Training`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*key, "init"))
        judge = SceneJudge(len(world.concepts), len(STYLES))
    stream = Stream(world, others, settings.batch, (*key, "train"))
    training.train(Trained(judge, {}), Classify(), lambda step: iter([stream(step)]), settings, scratch, "judge")
    judge.eval()
    _calibrate(judge, Stream(world, others, 1024, (*key, "calibrate")))
    return judge


def _calibrate(judge: SceneJudge, stream: Stream) -> None:
    """Temperature scaling: one number a head, the best of a grid on pictures that were not trained on."""
    grid = torch.linspace(-1, 1, 81).exp()
    with torch.no_grad():
        some = stream(0)
        logits = judge(some.images)
        for head, truth in enumerate((some.concept, some.style)):
            losses = [cross_entropy(logits[head] / t, truth) for t in grid]
            judge.temperature[head] = grid[int(torch.stack(losses).argmin())]


@torch.inference_mode()
def accuracy(judge: SceneJudge, stream: Stream, batches: int) -> dict[str, float]:
    """Shares classified right, and the mean confidence of each head (equal to its share when calibrated)."""
    right, sure, count = torch.zeros(2), torch.zeros(2), 0
    for step in range(batches):
        some = stream(step)
        for head, (logits, truth) in enumerate(zip(judge(some.images), (some.concept, some.style), strict=True)):
            best = logits.softmax(1).max(1)
            right[head] += (best.indices == truth).sum()
            sure[head] += best.values.sum()
        count += len(some.images)
    values = torch.cat([right / count, sure / count]).tolist()
    return dict(zip(("concept", "style", "concept_confidence", "style_confidence"), values, strict=True)) | {
        "images": count
    }


@torch.inference_mode()
def unseen(judge: SceneJudge, stream: Stream, count: int, key: tuple) -> dict[str, float]:
    """Shares it calls "none", and names the style of, of drawings it was not trained on (a `held` stream)."""
    images, style = stream.other(count, seeds.generator(*key, "unseen"))
    things, styles = judge(images)
    none = things.argmax(1) == judge.config["concepts"]
    return {"none": none.float().mean().item(), "style": (styles.argmax(1) == style).float().mean().item(),
            "images": count}  # fmt: skip
