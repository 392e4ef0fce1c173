"""Forgetting inside and outside the given prompts, keeping, drift: from judges that are told or drawn at random."""

import dataclasses

import numpy as np
import pytest
import torch

from palinode.data.captions import STYLES, Caption
from palinode.judge import Judge
from palinode.metrics import concept
from palinode.metrics.concept import ClassEyes, Context, SceneEyes, Seen
from palinode.scene_judge import SceneJudge

THINGS = ["cat", "dog", "sun"]
STRATA = ("T0", "T1", "T2", "T3", "T4", "anchor", "near", "other domain", "empty")
N = 40


def pictures(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (N, 16, 16, 1), np.uint8)


class Told:
    """Misses the target in a given share of each stratum's pictures; every kept picture is right but the first."""

    def __init__(self, missed: dict[str, float]):
        self.missed, self.left = missed, list(STRATA)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone = ClassEyes(Judge(16, 1, 3), 0).backbone

    def __call__(self, images, captions):
        share = self.missed.get(self.left.pop(0), 0.0)
        missed = np.arange(N) < share * N
        return Seen(1.0 - missed, missed, np.arange(N) > 0, np.full(N, 0.5))

    def fits(self, images, captions):
        """Every picture looks like the first caption."""
        return np.tile(np.arange(len(captions), 0.0, -1), (N, 1))


@pytest.fixture
def context() -> Context:
    base = {name: pictures(i) for i, name in enumerate(STRATA)}
    other = {name: pictures(100 + i) for i, name in enumerate(STRATA)}
    prompts = {name: [Caption("a cat", ("cat",))] * N for name in STRATA}
    eyes = Told({"T0": 1.0, "T1": 0.9, "T2": 0.8, "T3": 0.4, "T4": 0.5})
    prompts["near"] = [Caption("a dog", ("dog",)), Caption("a sun", ("sun",))] * (N // 2)
    prompts["other domain"] = [Caption("a dog", ("dog",)), Caption("a dog, noto style", ("dog",), "noto")] * (N // 2)
    real = np.concatenate([pictures(200 + i) for i in range(3)])
    return Context(base, base, other, other, prompts, list(STRATA[:5]), list(STRATA[5:]), real, eyes)


def test_forgetting_by_tier_and_the_gap(context):
    found = concept.evaluate(context)
    assert [found[f"ua_t{k}"].value for k in range(5)] == [1.0, 0.9, 0.8, 0.4, 0.5]
    gap = found["ua_gap"]
    assert gap.value == pytest.approx(0.4) and gap.lo < 0.4 < gap.hi
    assert found["target_probability"].value == 0 and found["target_entropy"].value == 0.5
    assert found["alignment_near"].value == 0.5 and "alignment_anchor" not in found, "one caption has no rival"
    assert "alignment_other_domain" not in found, "a caption with a style has no rival without one"
    assert found["fid_kept_real_judge"].value > 0 and found["kid_kept_real_judge"].n
    assert found["right_near"].value == found["right_other_domain"].value == 1 - 1 / N and "right_empty" not in found


def test_an_unchanged_model_has_integrity_one_and_another_seed_zero(context):
    found = concept.evaluate(context)
    for name in ("t0", "near", "empty"):
        assert found[f"integrity_{name}_judge"].value == 1 and found[f"change_{name}_judge"].value == 0
        assert found[f"oracle_change_{name}_judge"].value > 0
    context.eyes.left = list(STRATA)
    reseeded = concept.evaluate(dataclasses.replace(context, samples=context.other, oracle="there is none"))
    assert reseeded["integrity_near_judge"].value == 0 and reseeded["kid_near_judge"].value <= 1e-6
    assert reseeded["oracle_change_near_judge"].reason == "there is none"


def test_a_class_is_missed_or_right():
    class Fixed(torch.nn.Module):
        config = {"classes": 3}

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return 9 * torch.eye(3)[[0, 1, 1]]

    captions = [Caption("0", ("0",)), Caption("0", ("0",)), Caption("", ())]
    seen = ClassEyes(Fixed(), 0)(np.zeros((3, 16, 16, 1), np.uint8), captions)
    assert seen.missed.tolist() == [False, True, True] and seen.right.tolist() == [True, False, True]
    assert seen.target[0] > 0.99 and seen.target[1] < 0.01 and (seen.entropy < 0.01).all()


class Scripted(SceneJudge):
    """Answers from a list: (things, styles) of the whole picture, then of its left and right half."""

    def __init__(self, answers):
        super().__init__(len(THINGS), len(STYLES))
        self.answers = [tuple(9 * torch.eye(n + 1)[list(v)] for n, v in zip((3, 5), it, strict=True)) for it in answers]

    def forward(self, x):
        return self.answers.pop(0)


def test_scenes_of_one_thing_and_of_two():
    captions = [Caption("", ("cat",), "noto"), Caption("", ("cat",), "noto"), Caption("", ("sun",)),
                Caption("", ("dog", "cat")), Caption("", ("dog", "sun"))]  # fmt: skip
    whole, left, right = ([0, 0, 1, 3, 3], [1, 0, 1, 1, 1]), ([3, 3, 3, 1, 1], [0] * 5), ([3, 3, 3, 0, 0], [0] * 5)
    images = np.zeros((5, 32, 32, 3), np.uint8)
    seen = SceneEyes(Scripted([whole, left, right]), THINGS, "cat")(images, captions)
    assert seen.missed.tolist() == [False, False, True, False, False], "in a picture of two either half counts"
    assert seen.right.tolist() == [True, False, False, True, False], "noto is style 1; sun was seen as a dog"
    seen = SceneEyes(Scripted([whole, left, right]), THINGS, "noto")(images, captions)
    assert seen.missed.tolist() == [False, True, False, False, False]


def test_a_caption_fits_by_thing_and_by_style_if_it_names_one():
    captions = [Caption("", ("cat",), "noto"), Caption("", ("cat",), "twemoji"), Caption("", ("sun",), "noto")]
    eyes, images = SceneEyes(Scripted([([0, 2], [STYLES.index("noto")] * 2)]), THINGS, "cat"), np.zeros((2, 32, 32, 3))
    assert eyes.fits(images.astype(np.uint8), captions).argmax(1).tolist() == [0, 2]
