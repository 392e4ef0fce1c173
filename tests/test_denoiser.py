"""Every kind of model keeps one protocol, and what wraps a model keeps it too."""

import copy

import pytest
import torch
from conftest import SCHEDULER, TEXT_MODEL, TEXT_SCHEDULER, UNET

from palinode.core.errors import UserError
from palinode.models import class_conditional, files, loading, text_to_image, unconditional
from palinode.models.denoiser import Denoiser, Diffuser, train_only
from palinode.models.guidance import FixedCondition, Guided
from palinode.models.prompt_tuning import FreeClass, FreePrefix, free_prompts

KINDS = ("unconditional", "class", "text")
CONDITIONAL = ("class", "text")
PROMPTS = {"class": [0, None, 2], "text": ["a cat", "", "a dog, noto style"]}
MEMBERS = {name for name in vars(Denoiser) if not name.startswith("_")} | set(Denoiser.__annotations__)


@pytest.fixture(scope="module")
def models(corpus) -> dict[str, Diffuser]:
    return {
        "unconditional": unconditional.create(UNET, SCHEDULER, seed=1),
        "class": class_conditional.create(UNET, SCHEDULER, classes=3, seed=1),
        "text": text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1),
    }


@pytest.fixture
def fresh(models, request) -> Diffuser:
    """A copy of its own for a test that changes the model, or counts what it evaluates."""
    model = copy.deepcopy(models[request.param])
    model.nfe = {"forward": 0, "backward": 0}
    return model


def of_kinds(*kinds: str):
    return pytest.mark.parametrize("fresh", kinds, indirect=True)


def noise(model, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *model.shape, generator=generator)
    return x, torch.randint(len(model.schedule), (count,), generator=generator)


def null_condition(model: Diffuser) -> torch.Tensor | None:
    return None if type(model) is Diffuser else model.condition([model.null_prompt])


# The protocol


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_every_member_and_so_has_its_wrapper(models, kind):
    assert {"predict", "condition", "null_prompt", "nfe", "frozen", "trained"}.issubset(MEMBERS)
    wrapper = FixedCondition(models[kind], torch.zeros(1))
    for name in MEMBERS:
        assert hasattr(models[kind], name), name
        assert hasattr(wrapper, name), name


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_a_condition_is_made_of_prompt_ids(models, kind):
    model = models[kind]
    ids = model.prompt_ids(PROMPTS[kind])
    assert not ids.is_floating_point()
    with torch.no_grad():
        conditions = model.condition(PROMPTS[kind])
        assert torch.equal(conditions, model.states(ids))
        assert torch.equal(conditions[1:2], model.condition([model.null_prompt]))
        x, t = noise(model)
        predicted = model.predict(x, t, conditions)
    assert predicted.shape == x.shape
    assert predicted.dtype == torch.float32


def test_an_unconditional_model_takes_no_prompts(models):
    with pytest.raises(UserError, match="an unconditional model takes no prompts"):
        models["unconditional"].condition(["a cat"])


@pytest.mark.parametrize(
    ("kind", "text", "prompt"),
    [("unconditional", "", None), ("class", "2", 2), ("class", "", None), ("text", "a cat", "a cat"), ("text", "", "")],
)
def test_a_captions_text_stands_for_a_prompt(models, kind, text, prompt):
    assert models[kind].parse_prompt(text) == prompt
    assert text or models[kind].null_prompt == prompt


@pytest.mark.parametrize("kind", ["unconditional", "class"])
def test_pixel_models_work_on_the_images_themselves(models, kind):
    model = models[kind]
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    assert torch.equal(model.encode(images), images)
    assert torch.equal(model.decode(images), images)
    assert torch.equal(model.encode_all(images, chunk=2), images)


def test_latents_are_encoded_alike_in_any_chunks(models):
    model = models["text"]
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = model.encode(images)
        assert model.decode(latents).shape == images.shape
    assert latents.shape == (5, *model.shape)
    torch.testing.assert_close(model.encode_all(images, chunk=2), latents)
    factor = model.vae.config.scaling_factor
    torch.testing.assert_close(latents / factor, model.vae.encode(images).latent_dist.mean)


@of_kinds(*KINDS)
def test_evaluations_are_counted_by_the_sample(fresh):
    x, t = noise(fresh)
    condition = null_condition(fresh)
    condition = None if condition is None else condition.expand(3, *condition.shape[1:]).detach()
    with torch.no_grad():
        fresh.predict(x, t, condition)
    assert fresh.nfe == {"forward": 3, "backward": 0}
    fresh.predict(x, t, condition).square().sum().backward()
    assert fresh.nfe == {"forward": 6, "backward": 3}


@of_kinds(*KINDS)
def test_a_frozen_copy_does_not_train_and_counts_with_its_model(fresh):
    original = fresh.frozen()
    assert type(original) is type(fresh)
    assert not original.trainable()
    assert fresh.trainable()
    before = torch.cat([p.flatten() for p in original.net.parameters()])
    with torch.no_grad():
        for parameter in fresh.trainable():
            parameter.add_(1.0)
    assert torch.equal(before, torch.cat([p.flatten() for p in original.net.parameters()]))
    assert original.nfe is fresh.nfe


@of_kinds(*KINDS)
def test_freezing_leaves_nothing_that_trains(fresh):
    fresh.freeze()
    assert not fresh.trainable()
    if isinstance(fresh, text_to_image.TextToImage):
        assert not any(p.requires_grad for p in fresh.text_encoder.parameters())


@of_kinds("text")
def test_vectors_over_all_weights_are_cut_to_those_that_train(fresh):
    total = sum(p.numel() for p in fresh.net.parameters())
    everything = torch.arange(total)
    assert torch.equal(fresh.trained(everything), everything)
    train_only(fresh, "cross-attention-kv")
    chosen = {name for name, p in fresh.net.named_parameters() if p.requires_grad}
    assert chosen
    assert all("attn2.to_k." in name or "attn2.to_v." in name for name in chosen)
    assert len(fresh.trained(everything)) == len(fresh.weights()) < total
    train_only(fresh, "others")
    others = {name for name, p in fresh.net.named_parameters() if p.requires_grad}
    assert not any("attn2." in name for name in others)
    train_only(fresh, "cross-attention")
    assert chosen < {name for name, p in fresh.net.named_parameters() if p.requires_grad}


@of_kinds("unconditional")
def test_parameters_that_a_model_does_not_have_are_refused(fresh):
    with pytest.raises(UserError, match="trainable: 'cross-attention' matches no parameter"):
        train_only(fresh, "cross-attention")


# Folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_says_of_which_kind_it_is(models, kind, tmp_path):
    loading.save(models[kind], tmp_path / "model")
    loaded = loading.load(tmp_path / "model", kind=kind)
    assert type(loaded) is type(models[kind])
    x, t = noise(loaded)
    prompts = PROMPTS.get(kind)
    with torch.no_grad():
        expected = models[kind].predict(x, t, None if prompts is None else models[kind].condition(prompts))
        actual = loaded.predict(x, t, None if prompts is None else loaded.condition(prompts))
    assert torch.equal(actual, expected)
    wanted = next(other for other in KINDS if other != kind)
    with pytest.raises(UserError, match=f"is a model of the kind '{kind}', expected is '{wanted}'"):
        loading.load(tmp_path / "model", kind=wanted)


def test_a_folder_may_name_where_its_model_is(models, tmp_path):
    loading.save(models["class"], tmp_path / "model")
    files.name_source(tmp_path / "named", str(tmp_path / "model"))
    assert isinstance(loading.load(tmp_path / "named"), class_conditional.ClassConditional)


# Guidance and fixed conditions


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_guidance_moves_away_from_the_null_prompt(models, kind):
    model = models[kind]
    x, t = noise(model)
    with torch.no_grad():
        condition = model.condition(PROMPTS[kind])
        null = model.condition([model.null_prompt])
        conditional = model.predict(x, t, condition)
        unconditioned = model.predict(x, t, null.expand_as(condition))
        for scale in (0.0, 1.0, 2.5):
            guided = Guided(model, condition, null, scale)
            expected = unconditioned + scale * (conditional - unconditioned)
            torch.testing.assert_close(guided.predict(x, t), expected, rtol=1e-4, atol=1e-4)


@of_kinds("class")
def test_guidance_costs_two_evaluations_unless_its_scale_is_one(fresh):
    x, t = noise(fresh)
    condition = fresh.condition([0, 1, 2])
    with torch.no_grad():
        Guided(fresh, condition, fresh.condition([None]), 3.0).predict(x, t)
        assert fresh.nfe["forward"] == 6
        Guided(fresh, condition, fresh.condition([None]), 1.0).predict(x, t)
    assert fresh.nfe["forward"] == 9


@of_kinds("text")
def test_others_are_linear_and_convolutional_layers_outside_cross_attention(fresh):
    """What ESD's code trains as esd-u: embeddings of time among them, norms not."""
    train_only(fresh, "others")
    trained = {name for name, parameter in fresh.net.named_parameters() if parameter.requires_grad}
    assert {"conv_in.weight", "conv_out.bias", "time_embedding.linear_1.weight"} <= trained
    assert not [name for name in trained if "norm" in name or "attn2." in name]
    train_only(fresh, "cross-attention")
    crossed = {name for name, parameter in fresh.net.named_parameters() if parameter.requires_grad}
    rest = {name for name, _ in fresh.net.named_parameters()} - trained - crossed
    assert crossed and all("attn2." in name for name in crossed)
    assert rest and all("norm" in name for name in rest)


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_a_fixed_condition_is_for_whoever_gives_none(models, kind):
    model = models[kind]
    x, t = noise(model)
    with torch.no_grad():
        conditions = model.condition(PROMPTS[kind])
        first = conditions[:1]
        fixed = FixedCondition(model, first)
        assert torch.equal(fixed.predict(x, t), model.predict(x, t, first.expand_as(conditions)))
        assert torch.equal(fixed.predict(x, t, conditions), model.predict(x, t, conditions))
    assert fixed.nfe is model.nfe
    assert fixed.schedule is model.schedule
    assert fixed.shape == model.shape


@of_kinds(*CONDITIONAL)
def test_a_frozen_copy_keeps_the_fixed_condition(fresh):
    x, t = noise(fresh)
    with torch.no_grad():
        fixed = FixedCondition(fresh, fresh.condition(PROMPTS["class" if fresh.shape[0] == 1 else "text"][:1]))
        original = fixed.frozen()
        assert torch.equal(original.predict(x, t), fixed.predict(x, t))
        for parameter in fresh.trainable():
            parameter.mul_(0.5)
        assert not torch.equal(original.predict(x, t), fixed.predict(x, t))
    assert not original.trainable()
    assert original.nfe is fresh.nfe


# Free embeddings


@of_kinds("text")
def test_free_embeddings_stand_before_every_prompt_but_the_null_one(fresh):
    tuned = free_prompts(fresh, 2, "cat", torch.Generator().manual_seed(0))
    assert isinstance(tuned, FreePrefix)
    assert tuned.vectors.shape == (2, TEXT_MODEL["text_encoder"]["hidden_size"])
    ids = tuned.prompt_ids(["a cat", ""])
    plain = fresh.prompt_ids(["a cat", ""])
    start = fresh.tokenizer.bos_token_id
    assert ids[0, :3].tolist() == [start] * 3
    assert torch.equal(ids[0, 3:], plain[0, 1 : ids.shape[1] - 2])
    assert torch.equal(ids[1], plain[1])
    before = tuned.states(ids).detach()
    with torch.no_grad():
        tuned.vectors.add_(1.0)
    after = tuned.states(ids)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1]), "guidance starts from an untouched null prompt"
    torch.testing.assert_close(fresh.states(plain), fresh.condition(["a cat", ""]))
    after[0].sum().backward()
    assert tuned.vectors.grad.abs().sum() > 0


@of_kinds("text")
def test_free_embeddings_begin_as_words_of_the_vocabulary(fresh):
    tuned = free_prompts(fresh, 3, "cat", torch.Generator().manual_seed(0))
    again = free_prompts(fresh, 3, "cat", torch.Generator().manual_seed(0))
    assert torch.equal(tuned.vectors, again.vectors)
    words = fresh.text_encoder.get_input_embeddings().weight
    assert all((words == vector).all(1).any() for vector in tuned.vectors)


@of_kinds("text")
def test_a_prompt_without_room_for_free_embeddings_is_refused(fresh):
    tuned = free_prompts(fresh, 20, "cat", torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=r"attacks\.prompt_tuning\.vectors: no room for 20 before the prompt"):
        tuned.prompt_ids(["a drawing of a cat"])


@of_kinds("class")
def test_a_free_vector_takes_the_place_of_one_class(fresh):
    tuned = free_prompts(fresh, 4, 1, torch.Generator().manual_seed(0))
    assert isinstance(tuned, FreeClass)
    assert torch.equal(tuned.vectors[0], fresh.net.class_embedding.weight[1])
    x, t = noise(fresh)
    condition = fresh.condition([0, 1, None])
    with torch.no_grad():
        assert torch.equal(tuned.predict(x, t, condition), fresh.predict(x, t, condition))
        tuned.vectors.add_(1.0)
        changed = (tuned.predict(x, t, condition) - fresh.predict(x, t, condition)).flatten(1).abs().amax(1)
    assert changed[1] > 0
    assert changed[[0, 2]].max() == 0
