"""The second judge: what it learns, how it looks for a target, how it is compared with the first."""

import numpy as np
import pytest
import torch
from tiny import concept_parameters, make_folder, place_class_base, place_text_base, run, write_plan

from palinode.bases.text_to_image import second_judge as of_scenes
from palinode.core import contact_sheet
from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.data.captions import Caption
from palinode.metrics import second_judge
from palinode.metrics.second_judge import Probe, SecondJudge, TargetLooker
from palinode.params import Params
from palinode.pipeline import base_plans


class Plain:
    """Two layers with known moments, and pooled features that name the picture."""

    def layers(self, images):
        x = torch.as_tensor(np.array(images)).permute(0, 3, 1, 2).float()
        return [x, 2 * x[:, :1]]

    def pool(self, last):
        return last[:, 0, :1, 0] / 2


def colours(labels: np.ndarray) -> np.ndarray:
    """Pictures, uint8 [N, 32, 32, 3], black, red, green or blue as their class says."""
    noise = np.random.default_rng(0).integers(0, 20, (len(labels), 32, 32, 3))
    return (noise + 200 * np.eye(4)[labels][:, None, None, 1:]).astype(np.uint8)


@pytest.fixture(scope="module")
def judge() -> SecondJudge:
    labels = np.arange(60) % 4
    return SecondJudge.fit(Plain(), colours(labels), {"concept": labels, "style": labels % 2})


def test_tiles_are_the_pictures_of_a_sheet(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    contact_sheet.write_png(tmp_path / "sheet.png", contact_sheet.sheet(images, columns=3))
    assert np.array_equal(of_scenes.cut_tiles(tmp_path / "sheet.png"), images)


def test_a_probe_learns_what_is_linear_and_scales_its_features():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    x = np.eye(3)[labels] * [1, 100, 0.01] + generator.normal(size=(600, 3)) * [0.05, 5, 0.0005]
    probe = Probe.fit(x[:400], labels[:400])
    assert (probe(x[400:]) == labels[400:]).mean() > 0.98


def test_a_description_has_every_channels_mean_and_deviation_whatever_the_batch(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(second_judge, "BATCH", 2)
    description = second_judge.describe(Plain(), images)
    means = images.mean((1, 2))
    deviations = images.std((1, 2), ddof=1)
    expected = np.hstack([means, deviations, 2 * means[:, :1], 2 * deviations[:, :1], images[:, :1, 0, 0]])
    assert np.allclose(description, expected, rtol=1e-5)


def test_what_is_stored_judges_as_before(judge, tmp_path):
    images = colours(np.array([3, 0, 2]))
    judge.save(tmp_path)
    loaded = second_judge.load(tmp_path, Plain())
    assert loaded(images)["concept"].tolist() == judge(images)["concept"].tolist() == [3, 0, 2]
    assert loaded(images)["style"].tolist() == [1, 0, 0]
    with np.load(tmp_path / second_judge.FILE) as stored:
        arrays = {name: stored[name] for name in stored if name != "style_mean"}
    np.savez(tmp_path / second_judge.FILE, **arrays)
    with pytest.raises(UserError, match="style_mean is missing"):
        second_judge.load(tmp_path, Plain())
    np.savez(tmp_path / second_judge.FILE, other=np.zeros(1))
    with pytest.raises(UserError, match="weights is missing"):
        second_judge.load(tmp_path, Plain())


def test_a_picture_of_two_shows_the_target_when_either_half_does(judge):
    images = colours(np.array([3, 0]))
    images[1, :, 16:, 2] += 200  # black on the left, blue on the right
    captions = [Caption("", ("a",)), Caption("", ("a", "b"))]
    misses = {target: TargetLooker(judge, "concept", target).misses(images, captions).tolist() for target in range(4)}
    assert misses == {0: [True, False], 1: [True, True], 2: [True, True], 3: [False, False]}


def test_the_question_is_that_of_the_target(judge):
    assert second_judge.look_for(judge, "cat").question == "concept"
    style = second_judge.look_for(judge, "noto")
    assert (style.question, style.target) == ("style", 1)
    digits = SecondJudge(Plain(), {"class": judge.probes["concept"]})
    looker = second_judge.look_for(digits, 2)
    assert looker.misses(colours(np.array([2, 1])), [Caption("2", ("2",))] * 2).tolist() == [False, True]


def test_judges_are_compared_on_what_was_asked_for():
    """Things in rows of five styles; the first judge always sees thing 0 in style 0, the second is right."""
    drawn = np.zeros((10, 32, 32, 3), np.uint8)
    zeros = torch.zeros(10, dtype=torch.int64)

    def first(x):
        return torch.eye(3)[zeros], torch.eye(6)[zeros]

    wanted = dict(zip(of_scenes.QUESTIONS, np.divmod(np.arange(10), 5), strict=True))
    compared = of_scenes.compare(drawn, first, lambda images: wanted)
    assert compared["concept"]["first_right"].tolist() == [True] * 5 + [False] * 5
    assert compared["concept"]["second_right"].all()
    assert compared["style"]["first_right"].sum() == 2
    assert (compared["style"]["agree"] == compared["style"]["first_right"]).all()


@pytest.mark.slow
def test_each_kind_of_base_has_its_second_judge_or_says_why_not(tmp_path, monkeypatch):
    work = make_folder(tmp_path, monkeypatch)
    task = {"base": "mini", "target": "cat", "anchor": "dog"}
    parameters = concept_parameters({"cats": task}, {"finetune": {"method": "naive_deletion"}})
    parameters["base_models"]["mini"]["second_judge"] = {"fit": 1, "held": 1}
    parameters["base_models"]["two"]["judge"]["train"] = "data/mnist/judge-test.npy"
    write_plan(parameters)
    place_class_base(work / "models")
    place_text_base(work / "models")
    sheet = contact_sheet.sheet(np.zeros((10, 32, 32, 3), np.uint8), columns=5)
    (work / "models/mini/gate").mkdir()
    contact_sheet.write_png(work / "models/mini/gate/concepts.png", sheet)
    for base in ("two", "mini"):
        run("prepare", "base", base)
        run("second_judge", base)
    digits = read_json(work / "models/two/second-judge/accuracy.json")
    assert digits["class"]["held_out"]["value"] > 0.9
    scenes = read_json(work / "models/mini/second-judge/accuracy.json")
    assert set(scenes) == {"concept", "style"} and scenes["style"]["agree"]["n"] == 10
    assert scenes["concept"]["held_out"]["value"] > 0.1, "64 things and none"
    plans = {path: settings for path, settings, *_ in base_plans.plan_base(Params.model_validate(parameters), "tiny")}
    assert "forgets no concept" in plans["second-judge/tiny"].reason
