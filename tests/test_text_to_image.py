"""Text-to-image models: the folder format, prompts, guidance, and training on captioned pictures."""

import json
import math
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER, training

from palinode.bases import caption_training
from palinode.bases.caption_training import CaptionedLatents, Pictures, Pool
from palinode.bases.text_encoder import Contrast, PairEncoder
from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.data import captions, scenes
from palinode.data.scenes import Scenes, EmojiCorpus
from palinode.models import text_to_image, word_tokenizer
from palinode.models.files import WEIGHTS
from palinode.models.guidance import Guided
from palinode.models.schedule import Schedule
from palinode.models.text_to_image import TextToImage
from palinode.sampling import prompted
from palinode.sampling.samplers import ddim
from palinode.training.denoising import ConditionalBatch, Denoise

DATA = Path(__file__).parent.parent / "data/emoji"


@pytest.fixture(scope="module")
def corpus() -> EmojiCorpus:
    return EmojiCorpus.read(DATA)


@pytest.fixture(scope="module")
def model(corpus):
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("text-to-image") / "model"
    text_to_image.save(model, place, torch.float32)
    return place


def test_every_word_is_one_token_whatever_the_order(corpus):
    vocabulary, merges = word_tokenizer.word_vocabulary(corpus.words)
    assert (vocabulary, merges) == word_tokenizer.word_vocabulary(corpus.words[::-1])
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert all(f"{word}</w>" in vocabulary for word in corpus.words)


def test_words_reach_the_encoder_whole(model, corpus):
    ids = model.tokenizer(" ".join(corpus.words[:20])).input_ids
    assert model.tokenizer.convert_ids_to_tokens(ids[1:-1]) == [f"{word}</w>" for word in corpus.words[:20]]


def test_the_folder_is_a_stable_diffusion_pipeline(model, folder):
    loaded = text_to_image.load(folder)
    prompts = ["a kitty, noto style", ""]
    assert torch.equal(loaded.tokens(prompts), model.tokens(prompts))
    with torch.no_grad():
        assert torch.equal(loaded.condition(prompts), model.condition(prompts))
        for part in ("net", "vae"):
            for mine, other in zip(getattr(model, part).parameters(), getattr(loaded, part).parameters(), strict=True):
                assert torch.equal(mine, other)


@pytest.mark.parametrize(("scale", "to_one"), [(1.0, True), (3.0, True), (3.0, False)])
def test_our_sampler_draws_what_the_pipeline_draws(model, tmp_path, scale, to_one):
    """`set_alpha_to_one: false`, as Stable Diffusion 1.x has it: the last step ends at t = 0 instead of x_0."""
    from diffusers import StableDiffusionPipeline

    folder, steep = tmp_path / "model", {"beta_start": 0.05, "beta_end": 0.06, "set_alpha_to_one": to_one}
    config = model.config | steep  # so steep that the difference shows
    parts = (model.vae, model.text_encoder, model.tokenizer)
    text_to_image.save(TextToImage(model.net, model.schedule, config, *parts), folder, torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    mine = text_to_image.load(folder)
    prompts = ["a drawing of a kitty, noto style, on blue", "look at grapes"]
    noise = torch.randn(2, *mine.shape, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(prompts, guidance_scale=scale, num_inference_steps=5, latents=noise, output_type="pt").images
    with torch.inference_mode():
        guided = Guided(mine, mine.condition(prompts), mine.condition([""]), scale)
        latents = ddim(guided, noise, [81, 61, 41, 21, 1], draw=lambda: None)
        images = (mine.decode(latents) / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(images, theirs, atol=1e-5)
    assert (mine.schedule.final == 1) == to_one
    assert mine.nfe["forward"] == 5 * 2 * (1 if scale == 1 else 2)


def test_prompts_are_checked(model):
    with pytest.warns(UserWarning, match="does not know: xylophone"):
        model.tokens(["a kitty and a xylophone"])
    with pytest.raises(UserError, match="'qwerty zzz' holds no word that the text encoder knows"):
        model.tokens(["qwerty zzz"])
    with pytest.raises(UserError, match=r"needs 32 tokens, the text encoder takes 24"):
        model.tokens([" ".join(["cat"] * 30)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.tokens(["", "a kitty, on blue"])


def test_the_longest_prompt_of_the_grammar_fits(model, corpus):
    concepts = corpus.concepts
    longest = max(concepts.values(), key=lambda concept: max(len(word.split()) for word in concept.words))
    word = max(longest.words, key=lambda phrase: len(phrase.split()))
    template = max(captions.TEMPLATES, key=lambda text: len(text.split()))
    model.tokens([captions.caption(template, [("a", word), ("b", "spouting giant")], "fluent", "green").text])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda place: shutil.rmtree(place / "vae"), "has no vae/"),
        (lambda place: (place / "unet" / WEIGHTS).unlink(), "cannot read .*unet"),
        (lambda place: (place / "unet" / WEIGHTS).write_bytes(b"x" * 99), "cannot read .*unet"),
        (lambda place: (place / "tokenizer/tokenizer.json").write_text("{"), "cannot read .*tokenizer"),
        (lambda place: rename(place, "_class_name", "DDPMPipeline"), "holds a DDPMPipeline, not a StableDiffusion"),
        (lambda place: rename(place, "unet", ["diffusers", "UNet2DModel"]), "is a UNet2DModel, only UNet2DCondition"),
        (lambda place: (place / "model_index.json").unlink(), "missing file: .*model_index.json"),
    ],
)
def test_damaged_folders_are_refused(folder, tmp_path, change, words):
    place = tmp_path / "damaged"
    shutil.copytree(folder, place)
    change(place)
    with pytest.raises(UserError, match=words):
        text_to_image.load(place)


def rename(place: Path, key: str, value) -> None:
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps(index | {key: value}))


def test_held_out_combinations_never_appear(corpus):
    names = list(corpus.concepts)
    pairs = scenes.seen_pairs(names)
    assert 0.9 < len(pairs) / (len(names) * len(captions.STYLES)) < 1
    assert len(scenes.seen_pairs(names, {"cat", "noto"})) < len(pairs)
    generator = torch.Generator().manual_seed(0)
    drawn = Scenes.draw(pairs, 400, generator)
    shown = {(int(i), int(j)) for i, j in zip(drawn.left, drawn.style, strict=True)}
    shown |= {(int(i), int(j)) for i, j in zip(drawn.right, drawn.style, strict=True) if i >= 0}
    assert shown <= set(pairs) and 10 < (drawn.right >= 0).sum() < 80
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
    assert left_out and not {text for text in read if " style" not in text} & left_out


def test_pictures_match_their_rows(corpus):
    generator = torch.Generator().manual_seed(0)
    drawn = Scenes(*(torch.tensor([value]) for value in (5, -1, 1, 3)))
    image = drawn.render(corpus, generator)
    corner = (image[0, :, 0, 0] + 1) * 127.5
    assert image.shape == (1, 3, 32, 32) and image.min() >= -1 and image.max() <= 1
    assert torch.allclose(corner, torch.tensor(captions.BACKGROUNDS["blue"]).float(), atol=1.0)
    text = drawn.caption(0, corpus, generator)
    assert any(word in text for word in corpus.concepts["banana"].words)


def test_memorized_pictures_repeat_and_controls_do_not(model, corpus):
    pairs, steps = scenes.seen_pairs(list(corpus.concepts)), 200
    pool = Pool(model, corpus, pairs, 64, (1, "test"))
    batches = CaptionedLatents.to_memorize(pool, 32, (1, "test"), steps)
    assert len(batches.repeated) == sum(picture.kind != "control" for picture in corpus.pictures)
    assert len(batches.single) == sum(picture.seen or 0 for picture in corpus.pictures)
    step = next(iter(batches.single))
    variants, text = pool.fixed[batches.single[step]]
    batch = next(batches(step))
    assert torch.equal(batch.x[-1], variants[0]) and torch.equal(batch.given[-1:], model.tokens([text]))
    again = next(batches(step))
    assert torch.equal(batch.x, again.x) and torch.equal(batch.given, again.given)
    for name, left in (("memorized", 0), ("noto", 0.75)):
        smaller = corpus.without({name})
        assert len(smaller.pictures) == len(smaller.fixed) == left * len(corpus.pictures)
        assert all(picture.style != name for picture in smaller.pictures)
    alike = CaptionedLatents.of_all(pool, 32, (1, "test"))
    assert len(alike.repeated) == len(corpus.pictures) and not alike.single
    empty = Pool(model, corpus.without({"memorized"}), pairs, 64, (1, "test"))
    null_prompt = CaptionedLatents.to_memorize(empty, 32, (1, "test"), steps)
    assert not nothing.repeated and not nothing.single and next(nothing(0)).x.shape == (32, 4, 8, 8)


def test_contrast_is_the_mean_of_two_cross_entropies():
    batch = ConditionalBatch(*(torch.zeros(4, 1) for _ in range(4)))
    for similar, expected in ((torch.zeros(4, 4), math.log(4)), (50 * torch.eye(4), 0.0)):
        loss = Contrast(lambda x, given, similar=similar: similar).losses(None, batch)["x"]
        assert float(loss) == pytest.approx(expected, abs=1e-6)
    similar = torch.tensor([[0.0, 0.0], [math.log(3), math.log(3)]])  # the second picture is like everything
    of_captions, of_pictures = math.log(2), (math.log(4) + math.log(4 / 3)) / 2
    batch = ConditionalBatch(*(torch.zeros(2, 1) for _ in range(4)))
    loss = Contrast(lambda x, given: similar).losses(None, batch)["x"]
    assert float(loss) == pytest.approx((of_captions + of_pictures) / 2)


def test_pictures_find_their_captions(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)
    encoder = PairEncoder(model, 1)
    texts = ["a cat", "a dog, noto style", "here is a banana", "", "a cat, on blue", "a dog", "a rose", "look at a cat"]
    tokens, latents = model.tokens(texts), torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = Contrast(encoder).losses(None, ConditionalBatch(latents, None, None, tokens))["x"]
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert torch.equal(encoder(latents, tokens).argmax(1), torch.arange(8)), loss


def test_noisy_steps_weigh_more(model):
    schedule = Schedule(torch.tensor([0.9, 0.5, 0.2, 0.01]))  # SNR 9, 1, 1/4, 1/99
    assert caption_training.snr_weights(schedule).tolist() == pytest.approx([6 / 9, 2, 5, 25])
    given = model.tokens(["a cat", "a dog"])
    latents, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [ConditionalBatch(latents[[i]], torch.tensor([t]), eps[[i]], given[[i]]) for i, t in enumerate((0, 3))]
    both = ConditionalBatch(latents, torch.tensor([0, 3]), eps, given)
    with torch.no_grad():
        low, high = (float(Denoise(model).losses(None, batch)["x"]) for batch in batches)
        weighted = Denoise(model, caption_training.snr_weights(schedule)).losses(None, both)["x"]
    assert float(weighted) == pytest.approx((low * 6 / 9 + high * 25) / 2, rel=1e-4)


def test_a_model_is_trained_from_scratch(corpus, tmp_path, monkeypatch):
    short = training(steps=2, batch=8, lr=1e-3)
    settings = SimpleNamespace(model=TEXT_MODEL, scheduler=TEXT_SCHEDULER, root_seed=1, task="tiny", pool=32,
                               autoencoder=short, contrast=short, denoiser=short)  # fmt: skip
    texts = corpus.examples

    def preview(model):
        return prompted.draw(model, texts, (1, "tiny"), 2.0, 2)

    def place(phase: str) -> Scratch:
        return Scratch(f"tiny-{phase}", [])

    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    outcomes = [caption_training.pretrain(corpus, settings, place, "cpu", "tiny", preview) for _ in range(2)]
    one, two = (outcome.model for outcome in outcomes)
    assert outcomes[0].drawn.shape == (2, len(texts), 32, 32, 3) and len(set(texts)) == 12
    assert np.array_equal(outcomes[0].drawn[-1], preview(one)), "drawn with the weights that are kept"
    assert [len(outcomes[0].history[phase]) for phase in ("autoencoder", "contrast", "denoiser")] == [2, 2, 2]
    fresh = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)
    for part in ("net", "vae", "text_encoder"):
        pairs = list(zip(getattr(one, part).parameters(), getattr(two, part).parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs), "the same seed, the same bytes"
        assert any(not torch.equal(a, b) for (a, _), b in zip(pairs, getattr(fresh, part).parameters(), strict=True))
    pictures = Pictures(corpus, scenes.seen_pairs(list(corpus.concepts)), one.shape, 64, "cpu", (2,))
    sample = text_to_image.encoded(one, next(pictures(0)).x)
    assert 0.5 < sample.std() < 2, "latents are scaled to unit variance"
