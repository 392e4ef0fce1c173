"""What a text-to-image base must show, and the stages that train, judge and gate it at tiny size."""

import copy
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import PARAMETERS, ROOT, Project, failed
from test_resume import kill

from palinode.bases import caption_checks
from palinode.classifiers import scene_judge, storage
from palinode.core.errors import UserError
from palinode.core.images import to_images
from palinode.data import emoji
from palinode.data.captions import BACKGROUNDS, STYLES, TIERS
from palinode.data.scenes import EmojiCorpus, seen_pairs
from palinode.metrics import copies
from palinode.models import text_to_image
from palinode.sampling import prompted

DATA = ROOT / "data/emoji"
LIMITS = SimpleNamespace(concept=0.95, style=0.9, copies=0.8, false_copies=0.05)


@pytest.fixture(scope="module")
def corpus() -> EmojiCorpus:
    return EmojiCorpus.read(DATA)


@pytest.fixture(scope="module")
def asked(corpus) -> list[caption_checks.Request]:
    return caption_checks.requests(corpus, (1, "test"))


def test_every_group_is_asked_for(corpus, asked):
    counts, seen = Counter(request.group for request in asked), seen_pairs(list(corpus.concepts))
    assert counts["seen"] == len(seen) and counts["seen"] + counts["unseen"] == len(corpus.concepts) * len(STYLES)
    assert all(counts[tier] == caption_checks.TIER_PROMPTS for tier in TIERS)
    assert counts["ordinary"] >= 300 and counts["verbatim"] == counts["template"] == 16 * caption_checks.PICTURE_SEEDS
    assert asked == caption_checks.requests(corpus, (1, "test"))


def fixed_pictures(corpus: EmojiCorpus) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    return to_images(emoji.fixed(corpus.fixed, corpus.pictures, corpus.stickers, generator) * 2 - 1)


def test_copies_are_near_whatever_their_sticker(corpus):
    distance = copies.copy_distance(fixed_pictures(corpus), corpus)
    assert (distance.argmin(1) == np.arange(len(corpus.pictures))).all() and distance.diagonal().max() < 0.003
    off = distance + np.eye(len(distance))
    assert off.min() > copies.COPY, "no two fixed pictures are copies of each other"
    drawings = corpus.drawings.flatten(0, 1)
    for name in BACKGROUNDS:
        plain = emoji.on_background(drawings, [name] * len(drawings)) * 2 - 1
        nearest = copies.copy_distance(to_images(plain), corpus).min(1)
        assert (nearest < copies.COPY).mean() < 0.01, "an ordinary picture is no copy"


class FixedCondition:
    """A judge that is told the answers: concept and style of each picture, and of its halves."""

    def __init__(self, asked: list[caption_checks.Request], corpus: EmojiCorpus):
        names = list(corpus.concepts)
        concepts = [request.wanted.concepts if request.wanted else ("cat",) for request in asked]
        style = [STYLES.index(request.wanted.style or "noto") if request.wanted else 0 for request in asked]
        self.answers = [
            ([names.index(c[0]) for c in concepts], style),
            ([names.index(c[0]) for c in concepts], style),
            ([names.index(c[-1]) for c in concepts], style),
        ]

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        concept, style = self.answers.pop(0)
        return torch.eye(70)[concept], torch.eye(6)[style]


def test_a_perfect_model_passes_and_a_forgetful_one_does_not(corpus, asked):
    pictures = fixed_pictures(corpus)
    images = np.zeros((len(asked), 32, 32, 3), np.uint8)
    for i, request in enumerate(asked):
        if request.picture is not None and request.group != "control":
            images[i] = pictures[request.picture]
    seen = caption_checks.snapshot(images, FixedCondition(asked, corpus))
    found = caption_checks.measure(images, asked, corpus, seen)
    assert caption_checks.problem(found, LIMITS) is None
    confusion = caption_checks.confusion(asked, corpus, seen)
    off = np.array(confusion["style"]) * (1 - np.eye(len(STYLES), len(STYLES) + 1, dtype=int))
    assert not confusion["concept"] and not off.any()
    sheets = caption_checks.sheets(images, asked, corpus)
    assert sheets["concepts"].shape == (16 * 33, 20 * 33, 3) and sheets["memorized"].any()
    assert found["T4"]["concept"]["value"] == found["seen"]["style"]["value"] == found["verbatim"]["copy"]["value"] == 1
    assert found["seen"]["concept"]["lo"] > 0.98 and found["control"]["copy"]["value"] == 0

    images[[i for i, request in enumerate(asked) if request.group == "template"]] = 0
    found = caption_checks.measure(images, asked, corpus, seen)
    assert caption_checks.problem(found, LIMITS) == "copy right in 0.0% of the template prompts, at least 80% wanted"
    images[:] = pictures[0]
    found = caption_checks.measure(images, asked, corpus, seen)
    found["template"]["copy"]["value"] = found["verbatim"]["copy"]["value"] = 1
    assert caption_checks.problem(found, LIMITS).startswith(
        "copies of fixed pictures in 100.0% of the ordinary prompts"
    )


def test_alignment_is_one_for_a_sure_judge_and_none_for_one_that_cannot_tell(corpus, asked):
    images, names = np.zeros((len(asked), 32, 32, 3), np.uint8), list(corpus.concepts)
    one = [it.wanted for it in asked if it.wanted and len(it.wanted.concepts) == 1 and it.wanted.style]

    def sure(x):
        concept = torch.eye(65)[[names.index(it.concepts[0]) for it in one]]
        return 9 * concept, 9 * torch.eye(6)[[STYLES.index(it.style) for it in one]]

    found = caption_checks.alignment(images, asked, sure, corpus, (1, "test"))
    assert found["value"] == 1 and found["n"] == len(one) and found["among"] == 16
    blind = caption_checks.alignment(
        images, asked, lambda x: (torch.zeros(len(x), 65), torch.zeros(len(x), 6)), corpus, (1,)
    )
    assert blind["value"] == 0, "a tie is no success"


def test_samples_do_not_depend_on_the_chunk_or_on_other_prompts(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)
    prompts = ["a kitty", "a dog, on blue", "a kitty", "look at grapes"]
    one = prompted.draw(model, prompts, (1, "test"), 2.0, 3, chunk=4)
    two = prompted.draw(model, prompts[:2], (1, "test"), 2.0, 3, chunk=1)
    assert one.shape == (4, 32, 32, 3) and np.abs(one[:2].astype(int) - two).max() <= 1
    assert not np.array_equal(one[0], one[2]), "the same prompt, another noise"


def test_too_many_steps_are_refused():
    with pytest.raises(UserError, match=r"steps must lie in 1\.\.99, not 100"):
        prompted.timesteps(TEXT_SCHEDULER, 100)


def test_finished_chunks_are_not_drawn_again(corpus, tmp_path):
    model, prompts = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1), ["a dog"] * 5
    whole = prompted.draw(model, prompts, (1, "test"), 2.0, 3, tmp_path, chunk=2)
    (tmp_path / "chunk-2.npy").unlink()
    np.save(tmp_path / "chunk-0.npy", np.zeros_like(whole[:2]))
    again = prompted.draw(model, prompts, (1, "test"), 2.0, 3, tmp_path, chunk=2)
    assert not again[:2].any() and np.array_equal(again[2:], whole[2:])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    parameters, short = copy.deepcopy(PARAMETERS), {"steps": 2, "batch": 8, "lr": 1e-3}
    parameters["text"] = {"bases": ["mini"], "oracles": ["cat"]}
    parameters["text_bases"] = {"mini": {
        "model": TEXT_MODEL, "scheduler": TEXT_SCHEDULER, "pool": 16,
        "autoencoder": short, "contrast": short, "denoiser": short,
        "judge": {"steps": 2, "lr": 1e-3, "batch": 16}, "gate": {"steps": 1},
    }}  # fmt: skip
    made = Project.create(tmp_path_factory.mktemp("text") / "project", parameters)
    shutil.copytree(DATA, made.folder / "data/emoji")
    made.call("plan")
    return made


def test_the_stages_train_a_base_and_refuse_what_is_not_good_enough(project, corpus):
    refused = failed(project, "judge_scenes", "mini")
    assert "judge@mini: accuracy 0." in refused and not (project.folder / "models/mini/judge").exists()
    untrained = scene_judge.SceneJudge(len(corpus.concepts), len(STYLES))
    storage.save(untrained, project.folder / "models/mini/judge", {})
    project.call("pretrain_text", "mini")
    project.call("pretrain_text", "mini", "cat")
    assert "'moon' is no concept" in failed(project, "pretrain_text", "mini", "moon")
    base, oracle = (text_to_image.load(project.folder / "models/mini" / name) for name in ("base", "without-cat"))
    assert base.vae.config.scaling_factor != oracle.vae.config.scaling_factor
    refused = failed(project, "gate_text", "mini")
    assert "gate-text-mini: concept right in" in refused and not (project.folder / "models/mini/gate").exists()


def test_a_killed_training_continues_to_the_same_bytes(project, tmp_path):
    """Killed once in each of its three phases."""
    whole, broken = (project.copy(tmp_path / name) for name in ("whole", "broken"))
    for copied in (whole, broken):
        shutil.rmtree(copied.folder / "models/mini")
        for phase in ("autoencoder", "contrast", "denoiser"):
            copied.change(f"text_bases/mini/{phase}/steps", 10)
        copied.call("plan")
    command = broken.command("pretrain_text", "mini")
    for pieces in (3, 12, 6):  # more than before; a phase has 9
        kill(broken, command, "checkpoint.pt", pieces, 0.1, tmp_path / "log")
        assert not list(broken.folder.glob("models/mini/base"))
    assert len(list(broken.scratch.glob("*/drawn-*.npy"))) > 2
    for copied in (whole, broken):
        copied.call("pretrain_text", "mini")
    assert whole.digest("models/mini") == broken.digest("models/mini")


def test_bases_are_stages_of_the_graph(project):
    listed = project.dvc("stage", "list", "--all")
    for name in ("judge-scenes@mini", "pretrain-text@mini", "retrain-text@mini-cat", "gate-text@mini"):
        assert name in listed
