"""Text-to-image models: the folder format, prompts, guidance."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER

from palinode.core.errors import UserError
from palinode.data import captions
from palinode.models import text_to_image, word_tokenizer
from palinode.models.files import WEIGHTS
from palinode.models.guidance import Guided
from palinode.models.text_to_image import TextToImage
from palinode.sampling.samplers import ddim


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
    assert torch.equal(loaded.prompt_ids(prompts), model.prompt_ids(prompts))
    with torch.no_grad():
        assert torch.equal(loaded.condition(prompts), model.condition(prompts))
        for part in ("net", "vae"):
            for mine, other in zip(getattr(model, part).parameters(), getattr(loaded, part).parameters(), strict=True):
                assert torch.equal(mine, other)


@pytest.mark.parametrize(("scale", "to_one"), [(1.0, True), (3.0, True), (3.0, False)])
def test_our_sampler_draws_what_the_pipeline_draws(model, tmp_path, scale, to_one):
    """`set_alpha_to_one: false`, as Stable Diffusion 1.x has it: the last step ends at t = 0 instead of x_0."""
    from diffusers import StableDiffusionPipeline

    folder = tmp_path / "model"
    steep = {"beta_start": 0.05, "beta_end": 0.06, "set_alpha_to_one": to_one}  # so steep that the difference shows
    parts = (model.vae, model.text_encoder, model.tokenizer)
    text_to_image.save(TextToImage(model.net, model.schedule, model.config | steep, *parts), folder, torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    mine = text_to_image.load(folder)
    prompts = ["a drawing of a kitty, noto style, on blue", "look at grapes"]
    noise = torch.randn(2, *mine.shape, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(prompts, guidance_scale=scale, num_inference_steps=5, latents=noise, output_type="pt").images
    with torch.inference_mode():
        guided = Guided(mine, mine.condition(prompts), mine.condition([""]), scale)
        latents = ddim(guided, noise, [81, 61, 41, 21, 1])
        images = (mine.decode(latents) / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(images, theirs, atol=1e-5)
    assert (mine.schedule.final == 1) == to_one
    assert mine.nfe["forward"] == 5 * 2 * (1 if scale == 1 else 2)


def test_prompts_are_checked(model):
    with pytest.warns(UserWarning, match="does not know: xylophone"):
        model.prompt_ids(["a kitty and a xylophone"])
    with pytest.raises(UserError, match="'qwerty zzz' holds no word that the text encoder knows"):
        model.prompt_ids(["qwerty zzz"])
    with pytest.raises(UserError, match=r"needs 32 tokens, the text encoder takes 24"):
        model.prompt_ids([" ".join(["cat"] * 30)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.prompt_ids(["", "a kitty, on blue"])


def test_the_states_of_a_name_are_those_of_its_last_word(model):
    prompts = ["a cat", "a drawing of a cat", "a dog"]
    with torch.no_grad():
        last = model.last_states(prompts)
        states = model.condition(prompts)
    places = [2, 5, 2]  # after the start token
    assert torch.equal(last, states[torch.arange(3), torch.tensor(places)])


def test_the_longest_prompt_of_the_grammar_fits(model, corpus):
    concepts = corpus.concepts
    longest = max(concepts.values(), key=lambda concept: max(len(word.split()) for word in concept.words))
    word = max(longest.words, key=lambda phrase: len(phrase.split()))
    template = max(captions.TEMPLATES, key=lambda text: len(text.split()))
    model.prompt_ids([captions.caption(template, [("a", word), ("b", "spouting giant")], "fluent", "green").text])


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
