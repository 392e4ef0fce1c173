"""What concept tasks train on: pairs that belong together, and pictures of the original model's own."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, TEXT_MODEL, TEXT_SCHEDULER, UNET
from project import ROOT

from palinode.core.images import to_model
from palinode.core.io import read_json
from palinode.core.scratch import Scratch
from palinode.data import captions, prompt_sets
from palinode.models import class_conditional, text_to_image
from palinode.params.concept_tasks import ConceptSample
from palinode.params.stage_settings import Amounts, PrepareConcept
from palinode.sampling import prompted
from palinode.tasks.concept import training_data
from palinode.tasks.concept.training_data import Made
from palinode.training import concept_batches
from palinode.training.concept_batches import ConceptBatches, ConceptData

AMOUNTS = Amounts(retain=12, pairs=10)
SAMPLE = ConceptSample(guidance=2.0, steps=3, each=4)
PROMPTS = """
templates: {training: ["a picture of {}"], new: ["look at {}"]}
attributes: {new: [on blue]}
things:
  cat: {group: animal, synonyms: [kitty]}
  dog: {group: animal, synonyms: [puppy]}
  pig: {group: animal, synonyms: [hog]}
  rose: {group: plant, synonyms: [blossom]}
"""


def settings(**changes) -> PrepareConcept:
    values = {
        "root_seed": 1,
        "name": "test",
        "absent": None,
        "kind": "text",
        "target": "cat",
        "anchor": "dog",
        "images": None,
        "prompts": None,
        "amounts": AMOUNTS,
        "sample": SAMPLE,
    }
    return PrepareConcept(**(values | changes))


@pytest.fixture(scope="module", autouse=True)
def at_the_root():
    """The shipped emoji are read from the repository's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALINODE_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        with Scratch("concept", []) as scratch:
            yield scratch


@pytest.fixture(scope="module")
def model(corpus):
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, seed=1)


@pytest.fixture(scope="module")
def captioned(model, place) -> Made:
    return training_data.build(model, settings(), 0, place)


# Captioned emoji


def test_shapes_and_prompts_of_captions(captioned):
    data = captioned.data
    assert data.retain.shape == (12, 4, 8, 8)
    assert data.forget.shape == data.anchor.shape == (10, 4, 8, 8)
    assert data.prompts[0] == ""
    for target, anchor in zip(data.forget_prompt, data.anchor_prompt, strict=True):
        assert "cat" in data.prompts[target]
        assert data.prompts[target].replace("cat", "dog") == data.prompts[anchor]
    words = {word for i in data.retain_prompt for word in data.prompts[i].replace(",", "").split()}
    assert not words & {"cat", "kitty", "feline"}


def test_the_anchors_pictures_are_the_originals_own(model, captioned):
    data = captioned.data
    prompts = [data.prompts[i] for i in data.anchor_prompt]
    drawn = prompted.draw(model, prompts, (1, "test anchor"), 2.0, 3)
    torch.testing.assert_close(data.anchor, model.encode_all(to_model(drawn)), msg="a picture, encoded again")


def test_closed_forms_get_every_name(captioned, corpus):
    names = captioned.edit_prompts
    assert (names["target"], names["anchor"]) == (["cat"], ["dog"])
    assert len(names["kept"]) == len(corpus.concepts) - 2 + 5
    assert not {"cat", "dog"} & set(names["kept"])
    templates = captions.EMOJI.templates.training
    assert names["target_in_templates"] == [template.format("a cat") for template in templates]
    assert len(names["kept_in_templates"]) == len(templates) * len(names["kept"])
    assert prompt_sets.ending_in(captions.EMOJI, "noto", ["cat"])[1] == "a drawing of a cat, noto"


def test_there_is_a_real_picture_for_each_retained_prompt(captioned):
    sets = captioned.prompt_sets
    assert captioned.real.shape == (len(training_data.real_prompts(sets)), 32, 32, 3)
    assert len(captioned.real) == 5 * 4, "all sets but the null prompt"


def test_data_comes_back_from_its_files(captioned, tmp_path):
    data = captioned.data
    concept_batches.save(data, captioned.edit_prompts, tmp_path / "data")
    again = concept_batches.load(tmp_path / "data")
    assert read_json(tmp_path / "data/edit_prompts.json") == captioned.edit_prompts
    assert again.prompts == data.prompts
    for name in [field.name for field in dataclasses.fields(ConceptData) if field.name != "prompts"]:
        assert torch.equal(getattr(again, name), getattr(data, name)), name


def test_a_subject_has_draws_of_its_own(model, place, captioned):
    other = training_data.build(model, settings(target="pig", anchor="cow"), 1, place)
    assert not torch.equal(other.data.retain, captioned.data.retain)
    assert not torch.equal(other.data.anchor, captioned.data.anchor)


# A file of prompts: the model draws all pictures itself


def test_a_model_that_was_trained_elsewhere_draws_all_pictures(model, place, tmp_path):
    (tmp_path / "few.yaml").write_text(PROMPTS)
    made = training_data.build(model, settings(prompts=str(tmp_path / "few.yaml")), 0, place)
    data = made.data
    assert made.real is None
    assert data.retain.shape == (12, 4, 8, 8)
    assert made.edit_prompts["kept"] == ["pig", "rose"]
    shown = [data.prompts[i] for i in data.forget_prompt]
    drawn = prompted.draw(model, shown, (1, "test shown"), 2.0, 3)
    torch.testing.assert_close(data.forget, model.encode_all(to_model(drawn)))
    assert (place.folder / "kept/chunk-0.npy").exists(), "what is drawn waits for a run that continues"


# Classes


@pytest.fixture
def labelled(tmp_path) -> PrepareConcept:
    """Five images of each of three classes, all of one brightness a class."""
    labels = np.repeat(np.arange(3, dtype=np.uint8), 5)
    images = np.zeros((15, 8, 8, 1), np.uint8) + (labels * 100)[:, None, None, None]
    np.save(tmp_path / "train.npy", images)
    np.save(tmp_path / "train-labels.npy", labels)
    return settings(kind="class", target=2, anchor=0, images=str(tmp_path / "train.npy"))


@pytest.fixture
def classes():
    return class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)


def test_classes(labelled, classes, place):
    data = training_data.build(classes, labelled, 0, place).data
    assert data.prompts[0] is None
    assert set(data.prompts) == {None, 0, 1, 2}
    assert (data.forget > 0.5).all(), "the target's pictures"
    for image, i in zip(data.retain, data.retain_prompt, strict=True):
        assert data.prompts[i] != 2
        assert float(image[0, 0, 0]) == pytest.approx(data.prompts[i] * 100 / 127.5 - 1)
    batch = next(ConceptBatches(data, classes, 6, 1, (1, "test"))(0))
    assert (batch.c_a == 2).all()
    assert (batch.c_anchor == 0).all()
    assert (batch.c_null == 3).all()
    assert batch.anchor.shape == batch.x.shape


def test_a_steps_batch_depends_on_its_number_alone(labelled, classes, place):
    data = training_data.build(classes, labelled, 0, place).data
    make = ConceptBatches(data, classes, 6, 1, (1, "test"))
    first = next(make(3))
    again = next(make(3))
    for name in ("x", "a", "t", "eps", "u", "anchor", "c_x"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert not torch.equal(first.eps, next(make(4)).eps)


def test_real_pictures_show_what_the_retained_prompts_ask_for(labelled, classes, place):
    made = training_data.build(classes, labelled, 0, place)
    assert made.real[:, 0, 0, 0].tolist() == [0] * 4 + [100] * 4
    assert made.edit_prompts == {}
    asked = [caption.text for caption in training_data.real_prompts(made.prompt_sets)]
    assert asked == ["0"] * 4 + ["1"] * 4
