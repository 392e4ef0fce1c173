"""Forgetting inside and outside the training prompts, keeping, drift: from judges that are scripted or untrained."""

import dataclasses

import numpy as np
import pytest
import torch

from palinode.classifiers.concept_classifiers import ClassConceptClassifier, Predictions, SceneConceptClassifier
from palinode.classifiers.digits import Judge
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core import estimate
from palinode.data.captions import STYLES, Caption
from palinode.metrics import concept_metrics
from palinode.metrics.concept_metrics import Context
from palinode.metrics.features import JudgeBackbone

THINGS = ["cat", "dog", "sun"]
SETS = ("training prompts", "new attributes", "new templates", "synonyms", "compositions",
        "anchor", "near", "other domain", "null prompt", "free wording")  # fmt: skip
N = 40


def pictures(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (N, 16, 16, 1), np.uint8)


class ScriptedClassifier:
    """Misses the target in a share of each set's pictures; every retained picture is correct but the first."""

    def __init__(self, missed: dict[str, float]):
        self.missed, self.left = missed, list(SETS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.judge = Judge(16, 1, 3)

    def __call__(self, images, captions):
        share = self.missed.get(self.left.pop(0), 0.0)
        missed = np.arange(N) < share * N
        return Predictions(1.0 - missed, missed, np.arange(N) > 0, np.full(N, 0.5))

    def score_captions(self, images, captions):
        """Every picture looks like the first caption."""
        return np.tile(np.arange(len(captions), 0.0, -1), (N, 1))


class ScriptedSecond:
    """Misses the target in the first half of every set."""

    def misses(self, images, captions):
        return np.arange(N) < N / 2


class OtherNetwork(JudgeBackbone):
    name = "efficientnet_lite0"

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            super().__init__(Judge(16, 1, 3))


@pytest.fixture
def context() -> Context:
    base = {name: pictures(i) for i, name in enumerate(SETS)}
    other = {name: pictures(100 + i) for i, name in enumerate(SETS)}
    prompts = {name: [Caption("a cat", ("cat",))] * N for name in SETS}
    classifier = ScriptedClassifier(dict(zip(SETS, (1.0, 0.9, 0.8, 0.4, 0.5), strict=False)))
    prompts["near"] = [Caption("a dog", ("dog",)), Caption("a sun", ("sun",))] * (N // 2)
    prompts["other domain"] = [Caption("a dog", ("dog",)), Caption("a dog, noto style", ("dog",), "noto")] * (N // 2)
    real = np.concatenate([pictures(200 + i) for i in range(4)])
    return Context(
        base, base, other, other, prompts, list(SETS[:5]), list(SETS[5:]), real, classifier, ScriptedSecond(),
        OtherNetwork(),
    )  # fmt: skip


def test_forgetting_by_prompt_set_and_the_gap(context):
    metrics = concept_metrics.evaluate(context)
    assert [metrics[f"ua_{name.replace(' ', '_')}"].value for name in SETS[:5]] == [1.0, 0.9, 0.8, 0.4, 0.5]
    gap = metrics["ua_gap"]
    assert gap.value == pytest.approx(1 - (0.9 + 0.8 + 0.4) / 3) and gap.lo < 0.3 < gap.hi
    assert metrics["target_probability"].value == 0 and metrics["target_entropy"].value == 0.5
    assert metrics["alignment_near"].value == 0.5 and "alignment_anchor" not in metrics, "one caption has no rival"
    assert "alignment_other_domain" not in metrics, "a caption with a style has no rival without one"
    assert metrics["fid_kept_real_judge"].value > 0 and metrics["kid_kept_real_judge"].n
    assert (
        metrics["accuracy_near"].value == metrics["accuracy_other_domain"].value == 1 - 1 / N
        and "accuracy_null_prompt" not in metrics
    )


def test_an_unchanged_model_has_integrity_one_and_another_seed_zero(context):
    metrics = concept_metrics.evaluate(context)
    for name in ("training_prompts", "near", "null_prompt"):
        assert metrics[f"integrity_{name}_judge"].value == 1 and metrics[f"drift_{name}_judge"].value == 0
        assert metrics[f"oracle_drift_{name}_judge"].value > 0
    context.classifier.left = list(SETS)
    reseeded = concept_metrics.evaluate(
        dataclasses.replace(context, samples=context.other_seed, oracle="there is none")
    )
    assert reseeded["integrity_near_judge"].value == 0 and reseeded["kid_near_judge"].value <= 1e-6
    assert reseeded["oracle_drift_near_judge"].reason == "there is none"


def test_two_judges_are_compared_picture_by_picture(context):
    metrics = concept_metrics.evaluate(context)
    sets = [name.replace(" ", "_") for name in SETS[:5]]
    assert [metrics[f"ua_{name}_second"].value for name in sets] == [0.5] * 5
    assert [metrics[f"judges_agree_{name}"].value for name in sets] == pytest.approx([0.5, 0.6, 0.7, 0.9, 1.0])
    context.classifier.left = list(SETS)
    alone = concept_metrics.evaluate(dataclasses.replace(context, second="there is no second judge"))
    assert alone["ua_synonyms_second"].reason == alone["judges_agree_synonyms"].reason == "there is no second judge"


def test_integrity_of_what_was_asked_for_is_measured_by_a_second_network_too(context):
    metrics = concept_metrics.evaluate(dataclasses.replace(context, samples=context.other_seed))
    second = {name.removesuffix("_efficientnet_lite0") for name in metrics if name.endswith("_efficientnet_lite0")}
    sets = ("near", "other_domain", "free_wording")
    assert second == {f"{what}_{name}" for what in ("integrity", "drift") for name in sets}
    assert metrics["integrity_near_efficientnet_lite0"].value == 0
    drifts = [metrics[f"drift_near_{network}"].value for network in ("judge", "efficientnet_lite0")]
    assert drifts[0] != drifts[1]


def test_a_class_is_missed_or_right():
    class Fixed(torch.nn.Module):
        config = {"classes": 3}

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return 9 * torch.eye(3)[[0, 1, 1]]

    captions = [Caption("0", ("0",)), Caption("0", ("0",)), Caption("", ())]
    seen = ClassConceptClassifier(Fixed(), 0)(np.zeros((3, 16, 16, 1), np.uint8), captions)
    assert seen.missed.tolist() == [False, True, True] and seen.correct.tolist() == [True, False, True]
    assert seen.target_probability[0] > 0.99 and seen.target_probability[1] < 0.01 and (seen.entropy < 0.01).all()


class Scripted(SceneJudge):
    """Answers from a list: (things, styles) of the whole picture, then of its left and right half."""

    def __init__(self, answers):
        super().__init__(len(THINGS), len(STYLES))
        self.answers = [
            tuple(9 * torch.eye(n + 1)[list(v)] for n, v in zip((3, 5), answer, strict=True)) for answer in answers
        ]

    def forward(self, x):
        return self.answers.pop(0)


def test_scenes_of_one_thing_and_of_two():
    captions = [Caption("", ("cat",), "noto"), Caption("", ("cat",), "noto"), Caption("", ("sun",)),
                Caption("", ("dog", "cat")), Caption("", ("dog", "sun"))]  # fmt: skip
    whole, left, right = ([0, 0, 1, 3, 3], [1, 0, 1, 1, 1]), ([3, 3, 3, 1, 1], [0] * 5), ([3, 3, 3, 0, 0], [0] * 5)
    images = np.zeros((5, 32, 32, 3), np.uint8)
    seen = SceneConceptClassifier(Scripted([whole, left, right]), THINGS, "cat")(images, captions)
    assert seen.missed.tolist() == [False, False, True, False, False], "in a picture of two either half counts"
    assert seen.correct.tolist() == [True, False, False, True, False], "noto is style 1; sun was seen as a dog"
    seen = SceneConceptClassifier(Scripted([whole, left, right]), THINGS, "noto")(images, captions)
    assert seen.missed.tolist() == [False, True, False, False, False]


def test_a_caption_fits_by_thing_and_by_style_if_it_names_one():
    captions = [Caption("", ("cat",), "noto"), Caption("", ("cat",), "twemoji"), Caption("", ("sun",), "noto")]
    classifier, images = (
        SceneConceptClassifier(Scripted([([0, 2], [STYLES.index("noto")] * 2)]), THINGS, "cat"),
        np.zeros((2, 32, 32, 3)),
    )
    assert classifier.score_captions(images.astype(np.uint8), captions).argmax(1).tolist() == [0, 2]


def test_what_is_missing_has_the_names_of_what_is_measured(context):
    present = concept_metrics.evaluate(context)
    absent = concept_metrics.evaluate(
        dataclasses.replace(
            context, classifier="no judge", second="no second judge", real="no real pictures", lpips="no trunk"
        )
    )
    measured = {name for name in absent if not name.endswith("lpips_alex")}
    assert measured == set(present) and len(absent) > len(measured), "without a judge LPIPS is asked for"
    second = {name for name in absent if name.endswith("_efficientnet_lite0")}
    assert second and all(absent[name].value is not None for name in second), "it needs no judge"
    assert {absent[name].value for name in absent.keys() - second} == {None}
    assert absent["accuracy_near"].reason == absent["drift_near_judge"].reason == "no judge"
    assert absent["fid_kept_real_judge"].reason == "no real pictures"
    assert absent["integrity_near_lpips_alex"].reason == "no trunk"
    of_class = dataclasses.replace(context, forget=["training prompts"], classifier="no judge")
    assert "ua_gap" not in concept_metrics.evaluate(of_class), "a class has no other words"


def test_a_prompt_set_keeps_the_bootstrap_of_its_old_name(context):
    metrics = concept_metrics.evaluate(context)
    missed = np.arange(N) < 0.8 * N
    assert (metrics["ua_new_templates"].replicates == estimate.from_rate(missed, stream=("T2",)).replicates).all()
