"""Training a text-to-image base on captioned pictures: what each phase sees, its losses, and one tiny training."""

import math

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER

from palinode.bases.caption_batches import CaptionedLatents, Pictures, Pool
from palinode.bases.text_encoder import Contrast, PairEncoder
from palinode.bases.text_to_image import pretrain as pretraining
from palinode.core.scratch import Scratch
from palinode.data import captions, scenes
from palinode.data.scenes import Scenes
from palinode.models import text_to_image
from palinode.models.schedule import Schedule
from palinode.params.bases import Phase
from palinode.params.stage_settings import PretrainText
from palinode.sampling import prompted
from palinode.training.denoising import ConditionalBatch, Denoise

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out


@pytest.fixture(scope="module")
def model(corpus):
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)


@pytest.fixture(scope="module")
def pairs(corpus) -> list[tuple[int, int]]:
    return scenes.seen_pairs(list(corpus.concepts))


# What is shown


def test_held_out_pairs_never_appear(corpus, pairs):
    names = list(corpus.concepts)
    assert 0.9 < len(pairs) / (len(names) * len(captions.STYLES)) < 1
    assert len(scenes.seen_pairs(names, {"cat", "noto"})) < len(pairs)
    drawn = Scenes.draw(pairs, 400, torch.Generator().manual_seed(0))
    shown = {(int(i), int(j)) for i, j in zip(drawn.left, drawn.style, strict=True)}
    shown |= {(int(i), int(j)) for i, j in zip(drawn.right, drawn.style, strict=True) if i >= 0}
    assert shown <= set(pairs)
    assert 10 < (drawn.right >= 0).sum() < 80


def test_held_out_captions_are_never_read(corpus, pairs):
    generator = torch.Generator().manual_seed(0)
    drawn = Scenes.draw(pairs, 400, generator)
    triples = {
        (word, template, background or "")
        for concept in corpus.concepts.values()
        for word in concept.words
        for template in captions.TEMPLATES
        for background in (None, *captions.BACKGROUNDS)
        if scenes.held_out(scenes.UNSEEN_TRIPLES, word, template, background or "")
    }
    left_out = {captions.caption(t, [("", w)], None, b or None).text for w, t, b in triples}
    read = {drawn.caption(i, corpus, generator) for i in range(400) if drawn.right[i] < 0}
    assert left_out
    assert not {text for text in read if " style" not in text} & left_out


def test_pictures_match_their_rows(corpus):
    generator = torch.Generator().manual_seed(0)
    drawn = Scenes(*(torch.tensor([value]) for value in (5, -1, 1, 3)))
    image = drawn.render(corpus, generator)
    corner = (image[0, :, 0, 0] + 1) * 127.5
    assert image.shape == (1, 3, 32, 32)
    assert image.min() >= -1
    assert image.max() <= 1
    assert torch.allclose(corner, torch.tensor(captions.BACKGROUNDS["blue"]).float(), atol=1.0)
    text = drawn.caption(0, corpus, generator)
    assert any(word in text for word in corpus.concepts["banana"].words)


def test_a_corpus_without_a_style_or_without_its_memorized_pictures(corpus):
    for name, share in (("memorized", 0), ("noto", 0.75)):
        smaller = corpus.without({name})
        assert len(smaller.pictures) == len(smaller.fixed) == share * len(corpus.pictures)
        assert all(picture.style != name for picture in smaller.pictures)


def test_memorized_pictures_repeat_and_controls_do_not(model, corpus, pairs):
    pool = Pool(model, corpus, pairs, 64, (1, "test"))
    batches = CaptionedLatents.to_memorize(pool, 32, (1, "test"), steps=200)
    assert len(batches.repeated) == sum(picture.kind != "control" for picture in corpus.pictures)
    assert len(batches.single) == sum(picture.seen or 0 for picture in corpus.pictures)
    step = next(iter(batches.single))
    variants, text = pool.fixed[batches.single[step]]
    batch = next(batches(step))
    assert torch.equal(batch.x[-1], variants[0])
    assert torch.equal(batch.prompt[-1:], model.prompt_ids([text]))
    again = next(batches(step))
    assert torch.equal(batch.x, again.x)
    assert torch.equal(batch.prompt, again.prompt)

    alike = CaptionedLatents.of_all(pool, 32, (1, "test"))
    assert len(alike.repeated) == len(corpus.pictures)
    assert not alike.single


def test_without_memorized_pictures_there_are_scenes_alone(model, corpus, pairs):
    pool = Pool(model, corpus.without({"memorized"}), pairs, 64, (1, "test"))
    batches = CaptionedLatents.to_memorize(pool, 32, (1, "test"), steps=200)
    assert not batches.repeated
    assert not batches.single
    assert next(batches(0)).x.shape == (32, 4, 8, 8)


# Losses


def contrast(similar: torch.Tensor) -> float:
    """The loss of pictures (rows) and captions (columns) that are as similar as that."""
    unused = ConditionalBatch(*(torch.zeros(len(similar), 1) for _ in range(4)))
    return float(Contrast(lambda x, prompt: similar).losses(None, unused)["objective"])


def test_contrast_is_the_mean_of_two_cross_entropies():
    assert contrast(torch.zeros(4, 4)) == pytest.approx(math.log(4), abs=1e-6)
    assert contrast(50 * torch.eye(4)) == pytest.approx(0.0, abs=1e-6)
    similar = torch.tensor([[0.0, 0.0], [math.log(3), math.log(3)]])  # the second picture is like everything
    of_captions = math.log(2)
    of_pictures = (math.log(4) + math.log(4 / 3)) / 2
    assert contrast(similar) == pytest.approx((of_captions + of_pictures) / 2)


def test_pictures_find_their_captions(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)
    encoder = PairEncoder(model, 1)
    texts = ["a cat", "a dog, noto style", "here is a banana", "", "a cat, on blue", "a dog", "a rose", "look at a cat"]
    tokens = model.prompt_ids(texts)
    latents = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = Contrast(encoder).losses(None, ConditionalBatch(latents, None, None, tokens))["objective"]
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert torch.equal(encoder(latents, tokens).argmax(1), torch.arange(8)), loss


def test_noisy_steps_weigh_more(model):
    schedule = Schedule(torch.tensor([0.9, 0.5, 0.2, 0.01]))  # SNR 9, 1, 1/4, 1/99
    assert pretraining.snr_weights(schedule).tolist() == pytest.approx([6 / 9, 2, 5, 25])
    tokens = model.prompt_ids(["a cat", "a dog"])
    latents, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [ConditionalBatch(latents[[i]], torch.tensor([t]), eps[[i]], tokens[[i]]) for i, t in enumerate((0, 3))]
    both = ConditionalBatch(latents, torch.tensor([0, 3]), eps, tokens)
    with torch.no_grad():
        low, high = (float(Denoise(model).losses(None, batch)["objective"]) for batch in batches)
        weighted = Denoise(model, pretraining.snr_weights(schedule)).losses(None, both)["objective"]
    assert float(weighted) == pytest.approx((low * 6 / 9 + high * 25) / 2, rel=1e-4)


# A training


def test_a_model_is_trained_from_scratch(corpus, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    monkeypatch.setattr(pretraining, "STEPS", 2)
    phases = dict.fromkeys(("autoencoder", "contrastive", "denoiser"), Phase(steps=2, batch=8, lr=1e-3))
    settings = PretrainText(
        root_seed=1,
        name="tiny",
        kind="text",
        corpus="emoji",
        source=None,
        model=TEXT_MODEL,
        scheduler=TEXT_SCHEDULER,
        pool=32,
        without=None,
        **phases,
    )
    outcomes = []
    for _ in range(2):
        with Scratch("tiny", []) as scratch:
            outcomes.append(pretraining.pretrain(corpus, settings, scratch, torch.device("cpu"), "tiny"))
    first, second = (outcome.model for outcome in outcomes)
    examples = corpus.examples
    assert len(set(examples)) == 12
    assert outcomes[0].drawn.shape == (2, 12, 32, 32, 3)
    last = prompted.draw(first, examples, (1, "tiny"), pretraining.GUIDANCE, 2)
    assert np.array_equal(outcomes[0].drawn[-1], last), "drawn with the weights that are kept"
    assert {phase: len(history) for phase, history in outcomes[0].history.items()} == dict.fromkeys(phases, 2)

    fresh = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)
    for part in ("net", "vae", "text_encoder"):
        weights = [list(getattr(model, part).parameters()) for model in (first, second, fresh)]
        assert all(torch.equal(a, b) for a, b, _ in zip(*weights, strict=True)), "the same seed, the same bytes"
        assert any(not torch.equal(a, c) for a, _, c in zip(*weights, strict=True))
    pictures = Pictures(corpus, pairs, first.shape, 64, torch.device("cpu"), (2,))
    latents = first.encode_all(next(pictures(0)).x)
    assert 0.5 < latents.std() < 2, "latents are scaled to unit variance"
