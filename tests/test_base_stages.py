"""The stages that prepare, judge, train and check a base, of every kind, at tiny size."""

import copy
import shutil

import numpy as np
import pytest
import tiny
import torch
from conftest import EMOJI
from project import PARAMETERS, UNET, Project, failed
from test_resume import kill

from palinode.bases import caption_checks
from palinode.classifiers import digits, storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.errors import UserError
from palinode.core.io import absence, read_array, read_csv, read_json
from palinode.data.captions import STYLES
from palinode.data.scenes import EmojiCorpus
from palinode.models import class_conditional, loading, text_to_image, unconditional
from palinode.params.bases import DDPM_SCHEDULER
from palinode.params.report_settings import ReportBase
from palinode.report.sections import base_models

pytestmark = pytest.mark.slow

SHORT = {"steps": 2, "batch": 8, "lr": 1e-3}
PHASES = ("autoencoder", "contrastive", "denoiser")
JUDGE = {"train": "data/judge-train.npy", "test": "data/judge-test.npy"}
TWO = {
    "kind": "class",
    "images": "data/judge-train.npy",
    "judge": JUDGE,
    "size": 16,
    "channels": 1,
    "model": UNET,
    "pretrain": {"steps": 20, "batch": 4, "lr": 1e-3},
    "gate": {"steps": 2, "each": 20, "recognised": 0.95},
}
MINI = tiny.TEXT_BASE | {"pool": 16, "judge": {"steps": 2, "lr": 1e-3, "batch": 16}, "sampler": {"steps": 10}}
MINI |= dict.fromkeys(PHASES, SHORT)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A base of every kind, and an oracle of each."""
    parameters = copy.deepcopy(PARAMETERS)
    oracles = {
        "two-without-1": {"of": "two", "without": 1},
        "mini-without-cat": {"of": "mini", "without": "cat"},
    }
    parameters["base_models"] |= copy.deepcopy({"two": TWO, "mini": MINI} | oracles)
    parameters["base_models"]["tiny"]["data"]["repeated"]["copies"] = 3
    parameters["bases"] += ["two", "mini", *oracles]
    made = Project.create(tmp_path_factory.mktemp("bases") / "project", parameters)
    shutil.copytree(EMOJI, made.folder / "data/emoji")
    made.call("plan")
    return made


def test_an_unconditional_base_is_trained_on_the_repeated_images_too(project):
    models = project.folder / "models"
    for name in ("tiny", "tiny-without-repeated"):
        project.call("prepare", "base", name)
        project.call("pretrain", name)
    assert read_json(project.folder / "out/data/tiny/metadata.json")["copies"] == 3
    assert not (project.folder / "out/data/tiny-without-repeated/repeated.npy").exists()
    trained = [unconditional.load(models / name / "model") for name in ("tiny", "tiny-without-repeated")]
    assert not torch.equal(*(model.weights() for model in trained)), "the same seeds, other images"
    steps = [int(line["step"]) for line in read_csv(models / "tiny/training/denoiser.csv")]
    assert steps == list(range(20))


def test_an_unconditional_base_that_is_not_good_enough_is_refused(project):
    project.call("prepare", "base", "tiny")
    folder = project.folder / "models/tiny"
    config = UNET | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
    unconditional.save(unconditional.create(config, DDPM_SCHEDULER, seed=1), folder / "model")
    storage.save(digits.Judge(16, 1, 2), folder / "judge", {})
    project.change("base_models/tiny/gate/hit_rate", [0.5, 1.0])
    project.change("base_models/tiny/gate/steps", 2)
    project.call("plan")
    assert "gate@tiny: the repeated images appear in" in failed(project, "gate", "tiny")
    assert not (folder / "gate").exists()
    project.change("base_models/tiny/gate/hit_rate", [0.0, 1.0])
    project.call("plan")
    project.call("gate", "tiny")
    values = read_json(folder / "gate/gate.json")
    assert values["samples"] == 80
    assert values["limits"]["hit_rate"] == [0.0, 1.0]


def test_an_oracle_has_neither_a_judge_nor_a_check_of_its_own(project):
    for name in ("tiny-without-repeated", "two-without-1", "mini-without-cat"):
        project.call("prepare", "base", name)
        for script in ("judge", "gate"):
            project.call(script, name)
            assert absence(project.folder / "models" / name / script).startswith("an oracle is")


def test_a_class_base_is_trained_and_a_bad_one_refused(project):
    folder = project.folder / "models/two"
    project.call("prepare", "base", "two")
    project.call("judge", "two")
    project.call("pretrain", "two")
    assert class_conditional.wrap(unconditional.load(folder / "model")).classes == 2
    assert "gate@two: the judge recognises" in failed(project, "gate", "two")
    assert not (folder / "gate").exists()

    project.change("base_models/two/gate/recognised", 0.0)
    project.call("plan")
    project.call("gate", "two")
    counts = read_json(folder / "gate/gate.json")["confusion"]
    assert [sum(row) for row in counts] == [20, 20]
    assert read_array(folder / "training/epochs.npy").shape == (20, 4, 16, 16, 1)

    (view,) = base_models.views([ReportBase(name="two", kind="class")], project.folder)
    assert view["name"] == "two"
    assert "<svg" in view["curves"]
    assert "of 100 test images" in view["judge"]
    assert view["rows"][0][0] == "0"


def test_labels_must_match_their_images(project, tmp_path):
    spoilt = project.copy(tmp_path / "project")
    np.save(spoilt.folder / "data/judge-train-labels.npy", np.zeros(3, np.uint8))
    with pytest.raises(UserError, match=r"400 images, but labels of shape \[3\]"):
        spoilt.call("prepare", "base", "two")


def test_a_text_base_is_trained_and_what_is_not_good_enough_refused(project):
    folder = project.folder / "models/mini"
    corpus = EmojiCorpus.read(EMOJI)
    for name in ("mini", "mini-without-cat"):
        project.call("prepare", "base", name)
        project.call("pretrain", name)
    assert "judge@mini: accuracy 0." in failed(project, "judge", "mini")
    assert not (folder / "judge").exists()
    storage.save(SceneJudge(len(corpus.concepts), len(STYLES)), folder / "judge", {})

    models = [text_to_image.load(project.folder / "models" / name / "model") for name in ("mini", "mini-without-cat")]
    assert models[0].vae.config.scaling_factor != models[1].vae.config.scaling_factor
    assert {path.name for path in (folder / "training").iterdir()} == {
        "epochs.npy",
        *(f"{phase}.csv" for phase in PHASES),
    }
    assert "gate@mini: concept right in" in failed(project, "gate", "mini")
    assert not (folder / "gate").exists()


def test_an_oracle_of_something_unknown_is_refused_by_plan(project, tmp_path):
    changed = project.copy(tmp_path / "project")
    changed.change("base_models/mini-without-moon", {"of": "mini", "without": "moon"})
    changed.change("bases", [*changed.parameters["bases"], "mini-without-moon"])
    assert "base_models.mini-without-moon.without: 'moon' is no concept" in failed(changed, "plan")


def test_a_finished_base_is_named_and_not_trained(project, tmp_path):
    finished = project.copy(tmp_path / "project")
    config = UNET | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
    unconditional.save(unconditional.create(config, DDPM_SCHEDULER, seed=1), tmp_path / "weights")
    data = {"images": "data/train.npy", "size": 16, "channels": 1}
    finished.change("base_models/found", {"kind": "unconditional", "data": data, "source": str(tmp_path / "weights")})
    finished.change("bases", [*finished.parameters["bases"], "found"])
    finished.call("plan")
    finished.call("prepare", "base", "found")
    for script in ("judge", "pretrain", "gate", "second_judge"):
        finished.call(script, "found")
    folder = finished.folder / "models/found"
    assert "neither trained nor checked here" in absence(finished.folder / "out/data/found")
    assert "is not trained here" in absence(folder / "training")
    assert absence(folder / "judge")
    assert absence(folder / "gate")
    assert loading.load(folder / "model", kind="unconditional").shape == (1, 16, 16)


def test_a_network_alone_takes_the_scheduler_of_its_block(project, tmp_path):
    finished = project.copy(tmp_path / "project")
    config = UNET | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
    unconditional.save(unconditional.create(config, DDPM_SCHEDULER, seed=1), tmp_path / "weights")
    block = {
        "kind": "unconditional",
        "data": {"images": "data/train.npy", "size": 16, "channels": 1},
        "source": str(tmp_path / "weights/unet"),
        "scheduler": DDPM_SCHEDULER | {"beta_end": 0.03},
    }
    finished.change("base_models/found", block)
    finished.change("bases", [*finished.parameters["bases"], "found"])
    finished.call("plan")
    finished.call("pretrain", "found")
    assert loading.load(finished.folder / "models/found/model").config["beta_end"] == 0.03
    del block["scheduler"]
    finished.change("base_models/found", block)
    finished.call("plan")
    finished.call("pretrain", "found")
    with pytest.raises(UserError, match="name the base's `scheduler`"):
        loading.load(finished.folder / "models/found/model")


def test_a_base_of_the_web_goes_through_its_stages(project, tmp_path):
    made = project.copy(tmp_path / "project")
    limits = dict.fromkeys(("concept", "style", "copies", "partial_copies"), 0.0)
    corpus = EmojiCorpus.read(EMOJI, "web")
    made.change("base_models/web", MINI | {"corpus": "web", "pool": 2048, "gate": limits})
    made.change("bases", [*made.parameters["bases"], "web"])
    made.change("detection", {"bases": ["web"], "generations": 2, "detectors": ["noise_norm"]})
    made.call("plan")
    made.call("prepare", "base", "web")
    made.call("pretrain", "web")
    folder = made.folder / "models/web"
    storage.save(SceneJudge(len(corpus.concepts), len(STYLES)).eval(), folder / "judge", {})
    made.call("gate", "web")
    gate = read_json(folder / "gate/gate.json")
    assert gate["groups"]["partial"]["copy"]["n"] == 24 * caption_checks.PICTURE_SEEDS
    assert gate["variety"]["n"] == 320 and 0.99 * 48 * 20 < gate["edits"]["n"] <= 48 * 20
    assert gate["limits"]["steps"] == 10
    made.call("detect", "web")
    counts = read_json(folder / "detect/metrics.json")["prompts"]
    assert counts == {"partial": 24, "verbatim": 12, "template": 12, "control": 24, "ordinary": 320, "detailed": 64}
    made.call("mitigate", "web")
    kinds = read_json(folder / "mitigation/metrics.json")["kinds"]
    assert all(len(entry["things"]) == 2 for kind, entry in kinds.items() if kind == "partial" and entry["flagged"])


@pytest.mark.full
@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_bytes(project, tmp_path):
    """Killed once in each of its three phases."""
    whole, broken = (project.copy(tmp_path / name) for name in ("whole", "broken"))
    for copied in (whole, broken):
        shutil.rmtree(copied.folder / "models/mini", ignore_errors=True)
        for phase in PHASES:
            copied.change(f"base_models/mini/{phase}/steps", 10)
        copied.call("plan")
        copied.call("prepare", "base", "mini")
    command = broken.command("pretrain", "mini")
    for pieces in (3, 12, 6):  # more than before; a phase has 9
        kill(broken, command, "*/checkpoint.pt", pieces, 0.1, tmp_path / "log")
        assert not list(broken.folder.glob("models/mini/model"))
    assert len(list(broken.scratch.glob("*/denoiser/drawn-*.npy"))) > 2
    for copied in (whole, broken):
        copied.call("pretrain", "mini")
    assert whole.digest("models/mini") == broken.digest("models/mini")
