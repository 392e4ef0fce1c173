"""The stages `detect` and `mitigate`: their plans, outputs and errors, on an untrained base of tiny size."""

import shutil

import pytest
import tiny
from project import ROOT, Project, call_stage, failed
from tiny import untrained

from palinode.core.io import read_csv, read_json, write_json

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

__all__ = ["untrained"]  # a fixture
PROMPTS = """prompt,kind
a cat,ordinary
a dog,ordinary
a kitty,ordinary
velvet harbor,verbatim
"a <b>cat</b>, on blue",template
"""
PLAN = "out/plan/detect/mini.json"
DETECTION = {
    "bases": ["mini"],
    "prompts": "data/prompts.csv",
    "generations": 2,
    "detectors": ["noise_norm", "sharpness"],
}
ROWS = {"naive": {"method": "naive_deletion"}}


def parameters() -> dict:
    """A concept task, since there has to be one, and a base to search."""
    made = tiny.concept_parameters({"no-cat": {"base": "mini", "target": "cat", "anchor": "dog"}}, ROWS)
    made["base_models"]["mini"]["sampler"] = {"steps": 10, "guidance": 7.5}
    return made | {"bases": ["mini"], "detection": DETECTION}


@pytest.fixture
def project(tmp_path, monkeypatch, untrained) -> Project:
    """A folder with an untrained base and a list of prompts; its code may be replaced, not changed."""
    for name in ("src", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(untrained, tmp_path / "models")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/emoji").symlink_to(ROOT / "data/emoji")
    (tmp_path / "data/prompts.csv").write_text(PROMPTS)
    made = Project(tmp_path)
    made.write_parameters(parameters())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALINODE_SCRATCH", str(made.scratch))
    return made


@pytest.mark.filterwarnings("ignore:the text encoder does not know")
def test_scores_and_metrics_are_written(project):
    project.call("plan")
    project.call("detect", "mini")
    folder = project.folder / "models/mini/detect"
    lines = read_csv(folder / "scores.csv")
    assert list(lines[0]) == ["prompt", "kind", "detector", "score"] and len(lines) == 5 * 4
    assert {line["prompt"] for line in lines} >= {"a <b>cat</b>, on blue", "a kitty"}
    assert all(float(line["score"]) > 0 for line in lines)
    metrics = read_json(folder / "metrics.json")
    assert metrics["prompts"] == {"ordinary": 3, "verbatim": 1, "template": 1}
    assert {name: (score["nfe"], score["jvps"]) for name, score in metrics["scores"].items()} == {
        "noise_norm_first": (4, 0),
        "noise_norm_ten": (40, 0),
        "noise_norm_all": (40, 0),
        "sharpness": (8, 4),
    }
    assert 0 <= metrics["scores"]["sharpness"]["all"]["auc"]["value"] <= 1
    written = project.digest("models/mini/detect")
    shutil.rmtree(folder)
    project.call("detect", "mini")
    assert project.digest("models/mini/detect") == written
    assert not list(project.scratch.glob("detect*")) and not project.leftovers()


@pytest.mark.filterwarnings("ignore:the text encoder does not know")
def test_what_is_flagged_is_mitigated(project):
    project.change("detection/detectors", ["noise_norm"])
    project.call("plan")
    project.call("detect", "mini")
    measured = project.folder / "models/mini/detect/metrics.json"
    folder = project.folder / "models/mini/mitigation"
    metrics = read_json(measured)
    metrics["scores"]["noise_norm_first"]["held_out"] = {"threshold": 0.0}
    write_json(measured, metrics)
    project.call("mitigate", "mini")
    summary = read_json(folder / "metrics.json")
    ordinary = summary["kinds"]["ordinary"]
    assert summary["target"] == 0 and ordinary["flagged"] == ordinary["prompts"] == 3
    before, after = summary["kinds"]["verbatim"]["norm"]
    assert before > after > 0
    assert len(read_csv(folder / "prompts.csv")) == 5
    assert (folder / "pictures.png").exists()
    reason = {"reason": "no prompt is known to be memorized"}
    metrics["scores"]["noise_norm_first"]["held_out"] = reason
    write_json(measured, metrics)
    shutil.rmtree(folder)
    project.call("mitigate", "mini")
    assert read_json(folder / "metrics.json") == reason
    assert not (folder / "pictures.png").exists()


def test_the_plan_lists_the_detectors_it_names(project):
    call_stage("plan")
    plan = read_json(project.folder / PLAN)
    code = [name.rsplit("/", 1)[-1] for name in plan["code"] if "memorization/detectors/" in name]
    assert code == ["__init__.py", "noise_norm.py", "sharpness.py"] and "bases" not in plan["settings"]
    assert list(plan["data"]) == ["data/prompts.csv"]


def test_one_detector_is_one_file_and_others_do_not_rerun_for_it(project):
    (project.folder / "src").unlink()
    shutil.copytree(ROOT / "src", project.folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    call_stage("plan")
    before = project.digest("out/plan")
    folder = "src/palinode/memorization/detectors"
    project.edit(f"{folder}/anisotropy.py", "COSINE = 2.0", "COSINE = 3.0")
    call_stage("plan")
    assert project.digest("out/plan") == before, "it is not in the list"
    project.edit(f"{folder}/sharpness.py", "Cost(2, jvps=1)", "Cost(2, jvps=2)")
    call_stage("plan")
    after = project.digest("out/plan")
    assert [name for name in after if after[name] != before[name]] == [PLAN]


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("detectors", ["noise_norms"], "detection.detectors: unknown detector 'noise_norms'"),
        ("detectors", [], "detection.detectors: the list is empty"),
        ("detectors", ["sharpness", "sharpness"], "detection.detectors: repeated: sharpness"),
        ("bases", ["tiny"], "detection.bases: 'tiny' is no text-to-image model of the list `bases`"),
        ("generations", 0, "detection.generations: Input should be greater than or equal to 1"),
        ("generations", "many", "detection.generations: Input should be a valid integer"),
        ("seeds", 3, "detection.seeds: unknown parameter"),
        ("prompts", "mine.csv", "detection.prompts: String should match pattern '^data/' (got 'mine.csv')"),
    ],
)
def test_wrong_parameters_end_the_first_stage(project, key, value, words):
    project.change(f"detection/{key}", value)
    assert words in failed(project, "plan")
    assert not (project.folder / "out/plan").exists()


def test_a_base_that_is_searched_takes_enough_steps(project):
    project.change("base_models/mini/sampler/steps", 9)
    words = "base_models.mini.sampler.steps: Input should be greater than or equal to 10 (got 9)"
    assert words in failed(project, "plan")
    assert not (project.folder / "out/plan").exists()


def test_a_lone_noise_is_refused_where_noises_are_compared(project):
    project.change("detection/generations", 1)
    project.call("plan")
    project.change("detection/detectors", ["seed_similarity"])
    assert "seed_similarity compares noises and needs at least 2 generations, not 1" in failed(project, "plan")


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "missing prompt list: data/prompts.csv"),
        ("prompt\n", "data/prompts.csv lists no prompt"),
        ("prompt\na cat\na cat\n", "listed twice, such as 'a cat'"),
        ("prompt\n" + "a cat and " * 10 + "\n", "needs 32 tokens, the text encoder takes 24"),
    ],
)
def test_a_bad_list_ends_the_stage_with_nothing_written(project, content, words):
    project.call("plan")
    path = project.folder / "data/prompts.csv"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert words in failed(project, "detect", "mini")
    if "tokens" not in words:
        assert words in failed(project, "plan"), "before the base is trained"
    assert not (project.folder / "models/mini/detect").exists() and not project.leftovers()
