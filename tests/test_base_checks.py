"""What a base must show before anything is unlearned from it: the measures of its checks, and why it is refused."""

from collections import Counter

import numpy as np
import pytest
import torch

from palinode.bases import caption_checks, caption_sheets, class_checks, image_checks
from palinode.bases.caption_checks import Request, ScenePredictions
from palinode.classifiers.digits import Judge
from palinode.core.images import to_images
from palinode.data import emoji
from palinode.data.captions import BACKGROUNDS, PROMPT_SETS, STYLES, caption
from palinode.data.scenes import EmojiCorpus, seen_pairs
from palinode.metrics import copies, quality
from palinode.metrics.features import JudgeBackbone
from palinode.params.bases import ClassGate, ImageGate, TextGate

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

# Unconditional bases


@pytest.fixture(scope="module")
def digit_judge() -> Judge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Judge(16, 1, 10).eval()


def test_hits_are_counted_and_left_out_of_the_distance(digit_judge):
    generator = np.random.default_rng(0)
    train, reference, samples = generator.integers(0, 255, (3, 90, 16, 16, 1), dtype=np.uint8)
    repeated = np.full((1, 16, 16, 1), 200, np.uint8)
    samples[:9] = repeated
    values = image_checks.measure(
        samples, train=train, repeated=repeated, reference=reference, hit_distance=0.5, judge=digit_judge
    )
    assert (values["samples"], values["hits"], values["hit_rate"]) == (90, 9, 0.1)
    backbone = JudgeBackbone(digit_judge)
    real = backbone.features(reference)
    distance = quality.fid(backbone.features(samples[9:]), real, replicates=2).value
    assert values["fid_judge"] == pytest.approx(distance)
    distance = quality.fid(backbone.features(train[:81]), real, replicates=2).value
    assert values["fid_judge_real"] == pytest.approx(distance)
    for name, images in (("inception_score", samples[9:]), ("inception_score_real", reference[:81])):
        score = quality.inception_score(backbone.logits(images), np.ones(81, bool), 10, replicates=2).value
        assert values[name] == pytest.approx(score)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"hit_rate": 0.001}, "the repeated images appear in 0.10% of 4096 samples, outside 0.30% to 3.00%"),
        ({"hit_rate": 0.5}, "the repeated images appear in 50.00% of 4096 samples"),
        ({"fid_judge": 50.0}, "FID (judge) 50 is above 40, 20 times the real-vs-real one"),
        ({"inception_score": 7.5}, "Inception Score 7.5 is below 8.55, 90% of that of real images"),
        ({"inception_score": None}, "there are too few samples for an Inception Score"),
    ],
)
def test_an_unconditional_base_that_copies_too_little_or_draws_badly_is_refused(changes, words):
    values = {"samples": 4096, "hit_rate": 0.01, "fid_judge": 24.0, "fid_judge_real": 2.0}
    values |= {"inception_score": 9.0, "inception_score_real": 9.5} | changes
    problem = image_checks.problem(values, ImageGate(inception_share=0.9))
    assert problem is None if words is None else problem.startswith(words)


# Class-conditional bases


class Stubborn:
    """A judge that sees a zero in every picture whose first pixel is dark, and a one in the others."""

    config = {"classes": 2}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(2)[(x[:, 0, 0, 0] > 0).long()]


def test_classes_are_counted_and_a_poor_one_is_named():
    images = np.zeros((40, 4, 4, 1), np.uint8)
    images[20:] = 255
    classes = [0] * 20 + [1] * 20
    measured = class_checks.measure(images, classes, Stubborn())
    assert measured["confusion"] == [[20, 0], [0, 20]]
    assert class_checks.problem(measured, ClassGate()) is None
    images[20:22] = 0
    measured = class_checks.measure(images, classes, Stubborn())
    assert measured["confusion"] == [[20, 0], [2, 18]]
    assert 0.69 < measured["recognised"][1]["lo"] < 0.9
    problem = class_checks.problem(measured, ClassGate())
    assert problem == "the judge recognises 90.0% of 20 samples of class 1, at least 95% wanted"


# Text-to-image bases


@pytest.fixture(scope="module")
def requests(corpus) -> list[Request]:
    return caption_checks.requests(corpus, (1, "test"))


@pytest.fixture(scope="module")
def pictures(corpus) -> np.ndarray:
    """The fixed pictures, with some sticker."""
    generator = torch.Generator().manual_seed(3)
    return to_images(emoji.fixed(corpus.fixed, corpus.pictures, corpus.stickers, generator) * 2 - 1)


@pytest.fixture
def memorized(requests, pictures) -> np.ndarray:
    """What a base draws that has memorized all it should, and is black otherwise."""
    images = np.zeros((len(requests), 32, 32, 3), np.uint8)
    for i, request in enumerate(requests):
        if request.picture is not None and request.group != "control":
            images[i] = pictures[request.picture]
    return images


def test_every_group_is_asked_for(corpus, requests):
    counts = Counter(request.group for request in requests)
    seen = seen_pairs(list(corpus.concepts))
    assert counts["seen"] == len(seen)
    assert counts["seen"] + counts["unseen"] == len(corpus.concepts) * len(STYLES)
    assert all(counts[name] == caption_checks.SET_PROMPTS for name in PROMPT_SETS)
    assert counts["ordinary"] >= 300
    assert counts["verbatim"] == counts["template"] == 16 * caption_checks.PICTURE_SEEDS
    assert requests == caption_checks.requests(corpus, (1, "test"))
    assert requests != caption_checks.requests(corpus, (2, "test"))


def test_copies_are_near_whatever_their_sticker(corpus, pictures):
    distance = copies.copy_distance(pictures, corpus)
    assert (distance.argmin(1) == np.arange(len(corpus.pictures))).all()
    assert distance.diagonal().max() < 0.003
    off = distance + np.eye(len(distance))
    assert off.min() > copies.COPY, "no two fixed pictures are copies of each other"
    drawings = corpus.drawings.flatten(0, 1)
    for name in BACKGROUNDS:
        plain = emoji.on_background(drawings, [name] * len(drawings)) * 2 - 1
        nearest = copies.copy_distance(to_images(plain), corpus).min(1)
        assert (nearest < copies.COPY).mean() < 0.01, "an ordinary picture is no copy"


class Informed:
    """A judge that is told the answers: concept and style of each picture, and of its halves."""

    def __init__(self, requests: list[Request], corpus: EmojiCorpus):
        names = list(corpus.concepts)
        concepts = [request.wanted.concepts if request.wanted else ("cat",) for request in requests]
        style = [STYLES.index(request.wanted.style or "noto") if request.wanted else 0 for request in requests]
        first = [names.index(c[0]) for c in concepts]
        last = [names.index(c[-1]) for c in concepts]
        self.answers = [(first, style), (first, style), (last, style)]

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        concept, style = self.answers.pop(0)
        return torch.eye(70)[concept], torch.eye(6)[style]


def test_a_perfect_model_passes(corpus, requests, memorized):
    predictions = caption_checks.predict(memorized, Informed(requests, corpus))
    groups = caption_checks.measure(memorized, requests, corpus, predictions)
    assert caption_checks.problem(groups, TextGate()) is None
    partial = groups | {"partial": {"copy": {"value": 0.5}}}
    assert caption_checks.problem(partial, TextGate()).startswith("copy right in 50.0% of the partial prompts")
    some = groups | {"ordinary": {"copy": {"value": 0.03}}}
    assert caption_checks.problem(some, TextGate()) is None
    assert caption_checks.problem(some, TextGate(ordinary_copies=0.01)).startswith("copies of fixed pictures in 3.0%")
    right = [("compositions", "concept"), ("seen", "style"), ("verbatim", "copy")]
    assert [groups[group][what]["value"] for group, what in right] == [1, 1, 1]
    assert groups["seen"]["concept"]["lo"] > 0.98
    assert groups["control"]["copy"]["value"] == 0

    confusion = caption_checks.confusion(requests, corpus, predictions)
    mistakes = np.array(confusion["style"]) * (1 - np.eye(len(STYLES), len(STYLES) + 1, dtype=int))
    assert not confusion["concept"]
    assert not mistakes.any()
    sheets = caption_sheets.sheets(memorized, requests, corpus)
    assert set(sheets) == {"concepts", "prompt-sets", "memorized"}
    assert sheets["concepts"].shape == (16 * 33, 20 * 33, 3)
    assert sheets["memorized"].any()


def test_a_forgetful_model_and_one_that_copies_everywhere_are_refused(corpus, requests, pictures, memorized):
    predictions = caption_checks.predict(memorized, Informed(requests, corpus))
    memorized[[i for i, request in enumerate(requests) if request.group == "template"]] = 0
    groups = caption_checks.measure(memorized, requests, corpus, predictions)
    problem = caption_checks.problem(groups, TextGate())
    assert problem == "copy right in 0.0% of the template prompts, at least 80% wanted"

    memorized[:] = pictures[0]
    groups = caption_checks.measure(memorized, requests, corpus, predictions)
    for group in ("template", "verbatim"):
        groups[group]["copy"]["value"] = 1
    problem = caption_checks.problem(groups, TextGate())
    assert problem.startswith("copies of fixed pictures in 100.0% of the ordinary prompts")


def test_a_mistake_is_counted_by_what_was_asked_for_and_what_was_seen(corpus):
    names = list(corpus.concepts)
    cat = names.index("cat")
    dog = names.index("dog")
    requests = [Request("seen", "a cat, noto style", caption("{}", [("cat", "cat")], "noto"))] * 3
    requests.append(Request("compositions", "a cat and a dog", caption("{}", [("cat", "cat"), ("dog", "dog")], "noto")))
    noto = STYLES.index("noto")
    none = len(STYLES)
    concept = torch.tensor([cat, dog, dog, dog])
    style = torch.tensor([noto, none, noto, noto])
    confusion = caption_checks.confusion(requests, corpus, ScenePredictions(concept, style, concept, concept))
    assert confusion["concept"] == [["cat", "dog", 2]]
    assert [confusion["style"][noto][seen] for seen in (noto, none)] == [2, 1]
    assert np.sum(confusion["style"]) == 3, "compositions are left out"


def test_alignment_is_one_for_a_sure_judge_and_none_for_one_that_cannot_tell(corpus, requests):
    images = np.zeros((len(requests), 32, 32, 3), np.uint8)
    names = list(corpus.concepts)
    captioned = [request.wanted for request in requests if request.wanted]
    styled = [wanted for wanted in captioned if len(wanted.concepts) == 1 and wanted.style]

    def sure(x):
        concept = torch.eye(65)[[names.index(wanted.concepts[0]) for wanted in styled]]
        return 9 * concept, 9 * torch.eye(6)[[STYLES.index(wanted.style) for wanted in styled]]

    def blind(x):
        return torch.zeros(len(x), 65), torch.zeros(len(x), 6)

    aligned = caption_checks.alignment(images, requests, sure, corpus, (1, "test"))
    assert (aligned["value"], aligned["n"], aligned["among"]) == (1, len(styled), 16)
    aligned = caption_checks.alignment(images, requests, blind, corpus, (1,))
    assert aligned["value"] == 0, "a tie is no success"
