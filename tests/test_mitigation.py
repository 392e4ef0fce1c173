"""Token attribution and mitigation at sampling time, on an untrained model of tiny size."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import ROOT

from palinode.classifiers.scene_judge import SceneJudge
from palinode.data.captions import STYLES
from palinode.data.prompt_lists import Prompt
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import mitigation, probe
from palinode.memorization.detectors import noise_norm
from palinode.models import text_to_image
from palinode.sampling.prompted import timesteps

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

TEXTS = ["a cat", "here is a dog, noto style"]


@pytest.fixture(scope="module")
def model():
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, EmojiCorpus.read(ROOT / "data/emoji").words, seed=1)


@pytest.fixture
def asked(model) -> probe.Probe:
    with torch.no_grad():
        condition = model.condition(TEXTS).repeat_interleave(2, 0)
        empty = model.condition([""])
    noise = torch.cat([probe.draw_probe_noise(model, (1, "mini"), i, 1, 2) for i in range(2)])
    return probe.Probe(model, condition, empty, noise, timesteps(TEXT_SCHEDULER, 10), 2.0, 2)


def test_the_norm_is_the_detectors_first_step(asked):
    with torch.no_grad():
        expected = noise_norm.scores(asked)["noise_norm_first"]
        assert torch.allclose(mitigation.first_norm(asked), expected)


def test_states_are_moved_until_the_norm_is_below_the_target(asked):
    with torch.no_grad():
        norm = mitigation.first_norm(asked)
    states, before, after = mitigation.mitigate(asked, float(norm.max()) + 1)
    assert torch.equal(states, asked.condition) and torch.equal(before, after), "nothing to do"
    low, high = norm.argmin(), norm.argmax()
    target = float(norm.mean())
    states, before, after = mitigation.mitigate(asked, target)
    moved = (states != asked.condition).flatten(1).any(1).view(2, 2)
    assert torch.allclose(before, norm) and not moved[low].any() and moved[high].all()
    assert after[low] == before[low] and after[high] < before[high]
    assert torch.equal(states[0], states[1]), "one set of states for all noises of a prompt"
    assert all(parameter.grad is None for parameter in asked.model.net.parameters())


def test_attribution_is_the_gradient_after_a_tokens_embedding(asked):
    ids = asked.model.prompt_ids(TEXTS)
    gradients = mitigation.attribute(asked, asked.model, ids)
    assert gradients.shape == ids.shape and (gradients >= 0).all()
    table, step, gradient = asked.model.text_encoder.get_input_embeddings().weight, 3e-3, []
    word = int(ids[0, 2])  # "cat", which the other prompt does not hold
    with torch.no_grad():
        for i in range(table.shape[1]):
            norms = []
            for move in (step, -2 * step):
                table[word, i] += move
                states = asked.model.states(ids).repeat_interleave(2, 0)
                norms.append(mitigation.first_norm(mitigation.replace(asked, condition=states))[0])
            table[word, i] += step
            gradient.append(float(norms[0] - norms[1]) / (2 * step))
    assert float(gradients[0, 2]) == pytest.approx(np.linalg.norm(gradient), rel=0.05) and gradients[0, 2] > 0
    assert not asked.model.text_encoder.get_input_embeddings()._forward_hooks


def test_a_run_reports_words_pictures_and_copies(model):
    corpus = EmojiCorpus.read(ROOT / "data/emoji")
    asked = [Prompt("a cat", "ordinary"), Prompt(corpus.pictures[0].caption, "verbatim"), Prompt("a dog", "ordinary")]
    settings = SimpleNamespace(generations=2, steps=10, guidance=2.0, batch=2)
    done = mitigation.run(model, asked, [0, 1], 1e-9, settings, (1, "mini"))
    assert [entry.prompt for entry in done] == asked[:2] and done[0].pictures.shape == (2, 2, 32, 32, 3)
    assert [word for word, _ in done[0].words] == ["a", "cat"] and sum(v for _, v in done[0].words) == pytest.approx(1)
    whole = mitigation.run(model, asked, [0, 1], 1e-9, SimpleNamespace(**vars(settings) | {"batch": 64}), (1, "mini"))
    assert np.allclose([entry.after for entry in done], [entry.after for entry in whole], rtol=1e-4), (
        "whatever the batch"
    )
    judge = SceneJudge(len(corpus.concepts), len(STYLES)).eval()
    summary = mitigation.summarise(done, asked, 1e-9, mitigation.Shown(corpus, judge))
    assert summary["kinds"]["ordinary"]["prompts"] == 2 and summary["target"] == 1e-9
    verbatim = summary["kinds"]["verbatim"]
    assert verbatim["flagged"] == 1 and verbatim["below"] == 0 and verbatim["norm"][1] < verbatim["norm"][0]
    assert verbatim["copies"][0]["n"] == 2
    unknown = mitigation.summarise(done, asked, 1e-9, None)["kinds"]["verbatim"]
    assert unknown == verbatim | {"copies": []}, "where the fixed pictures are not known"
    assert verbatim["things"] == [], "its caption names no thing that the base knows"


def test_things_are_looked_for_where_a_caption_names_one():
    web = EmojiCorpus.read(ROOT / "data/emoji", "web")
    picture = next(picture for picture in web.pictures if picture.kind == "partial")
    thing = list(web.concepts).index(picture.icon)

    class Seeing:
        """A judge that sees the picture's thing where the first pixel is bright, and another elsewhere."""

        def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return torch.eye(64)[torch.where(x[:, 0, 0, 0] > 0, thing, (thing + 1) % 64)], None

    pictures = np.zeros((2, 4, 32, 32, 3), np.uint8)
    pictures[0] = 255
    pictures[1, :1] = 255
    done = [
        mitigation.Mitigated(Prompt(text, "partial"), 3.0, 1.0, [], pictures) for text in (picture.caption, "a dream")
    ]
    shown = mitigation.Shown(web, Seeing())
    summary = mitigation.summarise(done, [entry.prompt for entry in done], 2.0, shown)["kinds"]["partial"]
    assert [entry["value"] for entry in summary["things"]] == [1.0, 0.25]
    assert [entry["n"] for entry in summary["things"]] == [4, 4], "a prompt without a known thing does not count"
    assert [entry["n"] for entry in summary["copies"]] == [8, 8]
