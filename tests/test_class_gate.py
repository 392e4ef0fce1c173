"""What a class-conditional base must show, and the stages that train and gate it at tiny size."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from project import PARAMETERS, Project

from palinode.bases import class_checks
from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.models import class_conditional, unconditional
from palinode.report.sections import base_models

LIMITS = SimpleNamespace(recognised=0.95)
ARRAYS = {"images": "data/judge-train.npy",
          "judge": {"train": "data/judge-train.npy", "test": "data/judge-test.npy"}}  # fmt: skip


class Stubborn:
    """A judge that sees a zero in every picture whose first pixel is dark, and a one in the others."""

    config = {"classes": 2}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(2)[(x[:, 0, 0, 0] > 0).long()]


def test_classes_are_counted_and_a_poor_one_is_named():
    images, asked = np.zeros((40, 4, 4, 1), np.uint8), [0] * 20 + [1] * 20
    images[20:] = 255
    found = class_checks.measure(images, asked, Stubborn())
    assert found["confusion"] == [[20, 0], [0, 20]] and class_checks.problem(found, LIMITS) is None
    images[20:22] = 0
    found = class_checks.measure(images, asked, Stubborn())
    assert found["confusion"] == [[20, 0], [2, 18]] and 0.69 < found["recognised"][1]["lo"] < 0.9
    assert class_checks.problem(found, LIMITS).startswith(
        "the judge recognises 90.0% of 20 samples of class 1, at least"
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    parameters = copy.deepcopy(PARAMETERS)
    tiny = PARAMETERS["tasks"]["tiny"]
    parameters["classes"] = {"bases": ["two"], "oracles": [1]}
    parameters["class_bases"] = {"two": ARRAYS | {
        "size": 16, "channels": 1, "model": tiny["model"], "pretrain": tiny["pretrain"],
        "gate": {"steps": 2, "each": 20, "recognised": 0.95},
    }}  # fmt: skip
    made = Project.create(tmp_path_factory.mktemp("classes") / "project", parameters)
    made.call("plan")
    return made


def test_the_stages_train_a_base_and_refuse_a_bad_one(project):
    models_folder = project.folder / "models/two"
    for script in ("prepare_class", "judge", "pretrain_class"):
        project.call(script, "two")
    assert class_conditional.of(unconditional.load(models_folder / "base")).classes == 2
    with pytest.raises(UserError, match="gate-class-two: the judge recognises"):
        project.call("gate_class", "two")
    assert not (models_folder / "gate").exists()

    project.change("class_bases/two/gate/recognised", 0.0)
    project.call("plan")
    project.call("gate_class", "two")
    counts = read_json(models_folder / "gate/gate.json")["confusion"]
    assert [sum(row) for row in counts] == [20, 20]
    (view,) = base_models.views([["two", "class"]], project.folder)
    assert [role for role, _ in view["epochs"]] == ["base"] and "<svg" in view["curves"]
    assert view["rows"][0][0] == "0" and "of 100 test images" in view["judge"]


def test_labels_must_match_their_images(project, tmp_path):
    spoilt = project.copy(tmp_path / "project")
    np.save(spoilt.folder / "data/judge-train-labels.npy", np.zeros(3, np.uint8))
    with pytest.raises(UserError, match=r"400 images, but labels of shape \[3\]"):
        spoilt.call("prepare_class", "two")
