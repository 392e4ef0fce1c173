"""The stage `detect`: its plan, its outputs, its errors, on an untrained base of tiny size."""

import copy
import csv
import json
import re
import shutil

import pytest
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import PARAMETERS, ROOT, Project, failed

from palinode.data.scenes import EmojiCorpus
from palinode.models import text_to_image

PROMPTS = """prompt,kind
a cat,ordinary
a dog,ordinary
a kitty,ordinary
velvet harbor,verbatim
"a <b>cat</b>, on blue",template
"""
PLAN = "out/plan/detect-mini.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    parameters, short = copy.deepcopy(PARAMETERS), {"steps": 2, "batch": 8, "lr": 1e-3}
    parameters["text"] = {"bases": ["mini"], "oracles": []}
    parameters["text_bases"] = {"mini": {
        "model": TEXT_MODEL, "scheduler": TEXT_SCHEDULER,
        "autoencoder": short, "contrast": short, "denoiser": short,
    }}  # fmt: skip
    parameters["detection"] = {"bases": ["mini"], "prompts": "data/prompts.csv", "generations": 2, "steps": 10,
                               "detectors": ["noise_norm", "sharpness"]}  # fmt: skip
    made = Project.create(tmp_path_factory.mktemp("detect") / "project", parameters)
    shutil.copytree(ROOT / "data/emoji", made.folder / "data/emoji")
    (made.folder / "data/prompts.csv").write_text(PROMPTS)
    base = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, EmojiCorpus.read(ROOT / "data/emoji").words, seed=1)
    text_to_image.save(base, made.folder / "models/mini/base")
    made.call("plan")
    return made


@pytest.mark.filterwarnings("ignore:the text encoder does not know")
def test_scores_and_metrics_are_written(project, tmp_path):
    project.call("detect", "mini")
    folder = project.folder / "models/mini/detect"
    with open(folder / "scores.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["prompt", "kind", "detector", "score"] and len(rows) == 5 * 4
    assert {row["prompt"] for row in rows} >= {"a <b>cat</b>, on blue", "a kitty"}
    assert all(float(row["score"]) > 0 for row in rows)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["prompts"] == {"ordinary": 3, "verbatim": 1, "template": 1}
    assert {name: (it["passes"], it["jvps"]) for name, it in metrics["scores"].items()} == {
        "noise_norm_first": (4, 0), "noise_norm_ten": (40, 0), "noise_norm_all": (40, 0), "sharpness": (8, 4),
    }  # fmt: skip
    assert 0 <= metrics["scores"]["sharpness"]["all"]["auc"]["value"] <= 1
    again = project.copy(tmp_path / "again")
    shutil.rmtree(again.folder / "models/mini/detect")
    again.call("detect", "mini")
    assert again.digest("models/mini/detect") == project.digest("models/mini/detect")
    assert not list(again.scratch.glob("detect*")) and not again.leftovers()


@pytest.mark.filterwarnings("ignore:the text encoder does not know")
def test_what_is_flagged_is_mitigated(project, tmp_path):
    some = project.copy(tmp_path / "some")
    if not (some.folder / "models/mini/detect").exists():
        some.call("detect", "mini")
    measured, folder = some.folder / "models/mini/detect/metrics.json", some.folder / "models/mini/mitigation"
    metrics = json.loads(measured.read_text())
    metrics["scores"]["noise_norm_first"]["held_out"] = {"threshold": 0.0}
    measured.write_text(json.dumps(metrics))
    some.call("mitigate", "mini")
    found = json.loads((folder / "metrics.json").read_text())
    assert found["target"] == 0 and found["kinds"]["ordinary"]["flagged"] == found["kinds"]["ordinary"]["prompts"] == 3
    assert found["kinds"]["verbatim"]["norm"][0] > found["kinds"]["verbatim"]["norm"][1] > 0
    with open(folder / "prompts.csv", encoding="utf-8", newline="") as handle:
        assert len(list(csv.DictReader(handle))) == 5
    assert (folder / "pictures.png").exists()
    metrics["scores"]["noise_norm_first"]["held_out"] = {"reason": "no prompt is known to be memorized"}
    measured.write_text(json.dumps(metrics))
    shutil.rmtree(folder)
    some.call("mitigate", "mini")
    assert json.loads((folder / "metrics.json").read_text()) == metrics["scores"]["noise_norm_first"]["held_out"]
    assert not (folder / "pictures.png").exists()


def test_the_plan_lists_the_detectors_it_names(project):
    plan = json.loads((project.folder / PLAN).read_text())
    code = [name.rsplit("/", 1)[-1] for name in plan["code"] if "memorization/detectors/" in name]
    assert code == ["__init__.py", "noise_norm.py", "sharpness.py"] and "bases" not in plan["settings"]
    assert {"detect@mini"} <= set(project.dvc("stage", "list", "--all").split())


def test_one_detector_is_one_file_and_others_do_not_rerun_for_it(project, tmp_path):
    changed = project.copy(tmp_path / "changed")
    before = changed.digest("out/plan")
    folder = "src/palinode/memorization/detectors"
    changed.edit(f"{folder}/anisotropy.py", "NORM, COSINE = 1.0, 2.0", "NORM, COSINE = 1.0, 3.0")
    changed.stage("plan")
    assert changed.digest("out/plan") == before, "it is not in the list"
    changed.edit(f"{folder}/sharpness.py", "Cost(2, jvps=1)", "Cost(2, jvps=2)")
    changed.stage("plan")
    after = changed.digest("out/plan")
    assert [name for name in after if after[name] != before[name]] == [PLAN]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("detectors", ["noise_norms"], "detection.detectors: unknown detector 'noise_norms'"),
        ("detectors", [], "detection.detectors: the list is empty"),
        ("detectors", ["sharpness", "sharpness"], "detection.detectors: repeated: sharpness"),
        ("bases", ["tiny"], "detection.bases: 'tiny' is not defined under `text_bases`"),
        ("generations", 0, "detection.generations"),
        ("generations", "many", r"detection.generations: .*'many'"),
        ("steps", 9, r"detection.steps: .*10 \(got 9\)"),
        ("seeds", 3, "detection.seeds: unknown parameter"),
        ("prompts", "mine.csv", r"detection.prompts: .*'\^data/' \(got 'mine.csv'\)"),
    ],
)
def test_wrong_parameters_end_the_first_stage(project, tmp_path, key, value, words):
    wrong = project.copy(tmp_path / "wrong")
    wrong.change(f"detection/{key}", value)
    assert re.search(words, failed(wrong, "plan"))


def test_a_lone_noise_is_refused_where_noises_are_compared(project, tmp_path):
    wrong = project.copy(tmp_path / "wrong")
    wrong.change("detection/generations", 1)
    wrong.call("plan")
    wrong.change("detection/detectors", ["seed_similarity"])
    assert "seed_similarity compares noises and needs at least 2 generations, not 1" in failed(wrong, "plan")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "missing prompt list: data/prompts.csv"),
        ("prompt\n", "data/prompts.csv lists no prompt"),
        ("prompt\na cat\na cat\n", "listed twice, such as 'a cat'"),
        ("prompt\n" + "a cat and " * 10 + "\n", "needs 32 tokens, the text encoder takes 24"),
    ],
)
def test_a_bad_list_ends_the_stage_with_nothing_written(project, tmp_path, content, words):
    wrong = project.copy(tmp_path / "wrong")
    shutil.rmtree(wrong.folder / "models/mini/detect", ignore_errors=True)
    path = wrong.folder / "data/prompts.csv"
    path.unlink() if content is None else path.write_text(content)
    assert words in failed(wrong, "detect", "mini")
    if "tokens" not in words:
        assert words in failed(wrong, "plan"), "before the base is trained"
    assert not (wrong.folder / "models/mini/detect").exists() and not wrong.leftovers()
