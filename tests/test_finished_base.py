"""Concept tasks on a finished text-to-image model: its prompts come from a file, its pictures from itself."""

import copy
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import PARAMETERS, ROOT
from test_report_build import make_run

from palinode import params
from palinode.core.errors import UserError
from palinode.core.images import to_model
from palinode.core.io import absent, read_array, read_json
from palinode.data import prompt_file, prompt_sets
from palinode.metrics import integrity
from palinode.models import loading, text_to_image
from palinode.pipeline import planning
from palinode.report import build
from palinode.report.sections import base_models
from palinode.sampling.prompted import draw
from palinode.tasks.concept import training_data
from palinode.training import concept_batches

PROMPTS = """
templates: {given: ["a photo of {}", "{}"], new: ["a sketch of {}", "look at {}"]}
attributes: {given: [at sunset], new: [in the snow]}
styles: {new: [van gogh, monet, rembrandt]}
things:
  parachute: {group: airborne, synonyms: [canopy]}
  airplane: {group: airborne, synonyms: [jet]}
  kite: {group: airborne, synonyms: [flyer]}
  church: {group: building, synonyms: [chapel]}
  house: {group: building, synonyms: [cottage]}
"""
ROWS = {
    "concept-ablation": {"method": "concept_ablation", "trainable": "cross-attention-kv"},
    "uce": {"method": "uce"}, "salun": {"method": "salun"},
}  # fmt: skip
TASK = {
    "base": "sd", "prompts": "data/prompts/few.yaml", "target": "parachute", "anchor": "airplane",
    "data": {"kept": 5, "pairs": 4, "traces": 2, "fisher": [1, 1], "saliency": 1},
    "unlearn": {"batch": 2, "gradient_checkpointing": True},
    "sample": {"steps": 2, "each": 3, "chunk": 4}, "bootstrap": 10,
}  # fmt: skip


def parameters(task: dict | None = None, **changes) -> dict:
    made = copy.deepcopy(PARAMETERS)
    made["rows"] |= {name: {"lr": 1e-3, "steps": 2} | row for name, row in ROWS.items()}
    made |= {"text": {"bases": ["sd"], "oracles": ["cat"]}, "text_bases": {"sd": {"source": "weights"}}}
    made |= {"concept": {"tasks": ["own"], "rows": list(ROWS)}, "concept_tasks": {"own": task or TASK}}
    return made | changes


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with prompts and the folder of an untrained model; stages are called, not started."""
    for name in ("src", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data/prompts").mkdir(parents=True)
    (tmp_path / "data/prompts/few.yaml").write_text(PROMPTS)
    words = [word for text in PROMPTS.replace(",", " ").split() if (word := text.strip('"[]{}:')).isalpha()]
    words += ["a", "an", "and", "in", "the", "style", "of"]
    text_to_image.save(text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, words, 1), tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


def write_plan(made: dict) -> None:
    planning.write_all(params.Params.model_validate(made), Path("."), Path("out/plan"))


def run(script: str, *arguments: str) -> None:
    importlib.import_module(script).run(*arguments)


def prepare(made: dict | None = None) -> None:
    write_plan(made or parameters())
    for script in ("pretrain_text", "judge_scenes", "gate_text"):
        run(script, "sd")
    run("prepare_concept", "own")


def test_the_stages_of_a_finished_base_name_it_and_say_what_is_absent(work):
    prepare()
    run("pretrain_text", "sd", "cat")
    models = work / "models/sd"
    assert read_json(models / "base/source.json") == {"source": "weights"} and list((models / "base").iterdir())
    for part in ("judge", "gate", "without-cat", "training/base", "training/without-cat"):
        assert "sd" in absent(models / part), part
    assert (work / "out/data/own/base/source.json").exists() and not (work / "out/data/own/base/unet").exists()
    assert "no judge knows what sd draws" in absent(work / "out/data/own/judge")
    (view,) = base_models.views([["sd", "text"]], work)
    assert view["lead"] == "weights, as it is." and "trained elsewhere" in view["reason"]


def test_a_tokenizer_without_its_merges_is_refused(work):
    write_plan(parameters())
    run("pretrain_text", "sd")
    for file in (work / "weights/tokenizer").glob("*.*"):
        if file.name in ("tokenizer.json", "merges.txt"):
            file.unlink()
    with pytest.raises(UserError, match="weights/tokenizer has no merges.txt and no tokenizer.json"):
        run("prepare_concept", "own")
    assert not (work / "out/data").exists()


def test_pictures_are_the_models_own(work):
    prepare()
    data, model = concept_batches.load(work / "out/data/own/training"), loading.load(work / "models/sd/base")
    assert data.x.shape == (5, 4, 8, 8) and data.a.shape == data.m.shape == (4, 4, 8, 8) and data.z.shape[:2] == (2, 2)
    assert not any("parachute" in data.prompts[i] or "canopy" in data.prompts[i] for i in data.kept)
    for target, anchor in zip(data.target, data.anchor, strict=True):
        assert data.prompts[target].replace("a parachute", "an airplane") == data.prompts[anchor]
    drawn = draw(model, [data.prompts[i] for i in data.target], (1, "own shown"), 3.0, 2, chunk=4)
    with torch.inference_mode():
        assert torch.equal(model.encode(to_model(drawn)), data.a)
    assert not (work / "out/data/own/real.npy").exists()


def test_a_killed_preparation_continues(work, monkeypatch):
    write_plan(parameters())
    for script in ("pretrain_text", "judge_scenes", "gate_text"):
        run(script, "sd")
    monkeypatch.setattr(training_data, "_assembled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run("prepare_concept", "own")
    monkeypatch.undo()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PALINODE_SCRATCH", str(work / "scratch"))
    kept = sorted((work / "scratch").rglob("chunk-*.npy"))
    assert len(kept) == 3, "two chunks of five kept pictures, one of four of the target"
    kept[0].unlink()
    run("prepare_concept", "own")
    made = work / "out/data/own/training/arrays.npz"
    continued = made.read_bytes()
    run("prepare_concept", "own")
    assert continued == made.read_bytes() and not list((work / "scratch").iterdir())


def test_a_cell_runs_to_the_report_without_a_judge(work):
    prepare()
    run("importance", "own")
    for script in ("sample_concept", "evaluate_concept"):
        for role in ("base", "oracle", "other"):
            run(script, "own", role, "0")
    for row in ROWS:
        for script in ("unlearn_concept", "sample_concept", "evaluate_concept"):
            run(script, "own", row, "0")
    cells = work / "out/cells/own"
    asked = read_json(work / "out/data/own/prompt_sets.json")
    strata = [*asked["forget"], *asked["keep"]]
    assert prompt_sets == ["T0", "T1", "T2", "T3", "T4", "anchor", "near", "far", "other domain", "empty"]
    assert len(read_array(cells / "uce/0/samples/samples.npy")) == 3 * len(prompt_sets)
    found = read_json(cells / "salun/0/evaluation/metrics.json")
    for name in ("ua_t0", "ua_gap", "target_probability", "right_near", "alignment_far", "kid_anchor_judge",
                 "fid_kept_judge", "integrity_near_judge", "change_t0_judge"):  # fmt: skip
        assert found[name]["value"] is None and found[name]["reason"] == "no judge knows what sd draws", name
    assert "no real pictures" in found["fid_kept_real_judge"]["reason"]
    assert "lpips_trunk" in found["integrity_near_lpips_alex"]["reason"]
    assert found["forward_passes"]["value"] > 0
    settings = make_run(work)
    settings["families"]["own"], settings["bases"] = "concept", [["sd", "text"]]
    settings["tasks"]["own"] = {row: {"method": row, "paper": None, "options": {}, "training": {
        "lr": 1e-3, "steps": 2, "batch": 2, "accumulate": 1}} for row in ROWS}  # fmt: skip
    assert "own" in build.build(settings, work)
    html = (work / "report/index.html").read_text()
    assert "There is no gate: sd was trained elsewhere" in html and "no judge knows what sd draws" in html
    assert "Contact strip other domain" in html


def test_drift_is_measured_by_a_network_that_is_named(work, monkeypatch):
    def trunk(path):
        assert path == "alexnet.pth"
        return lambda a, b: torch.from_numpy(np.abs(a.astype(float) - b).mean((1, 2, 3)))

    monkeypatch.setattr(integrity, "lpips_alex", trunk)
    prepare(parameters(TASK | {"lpips_trunk": "alexnet.pth"}))
    run("importance", "own")
    for role in ("base", "oracle", "other"):
        run("sample_concept", "own", role, "0")
    run("evaluate_concept", "own", "other", "0")
    found = read_json(work / "out/cells/own/other/0/evaluation/metrics.json")
    assert found["integrity_far_lpips_alex"]["value"] == 0 and found["change_far_lpips_alex"]["value"] > 0
    assert found["integrity_far_judge"]["value"] is None


def test_a_file_of_classes_gives_fewer_strata():
    concepts, grammar = prompt_file.read(ROOT / "data/prompts/imagenette.yaml")
    found = prompt_sets.of_captions(concepts, "tench", "pokemon", 8, torch.Generator().manual_seed(0), grammar)
    assert list(found.forget) == ["T0", "T2", "T3", "T4"] and list(found.keep) == ["anchor", "near", "far", "empty"]
    assert {caption.text for caption in found.forget["T0"]} == {"an image of a tench"}
    assert all(len(some) == 8 for some in (found.forget | found.keep).values()), "captions come again"
    assert {caption.concepts for caption in found.keep["near"]} == {("english springer",)}


@pytest.mark.parametrize("target,anchor", [("parachute", "airplane"), ("church", "house"), ("r2d2", "robot"),
                                           ("van gogh", "a painting")])  # fmt: skip
def test_what_is_kept_is_never_asked_for_as_training_read_it(target, anchor):
    concepts, grammar = prompt_file.read(ROOT / "data/prompts/objects.yaml")
    found = prompt_sets.of_captions(concepts, target, anchor, 10**5, torch.Generator().manual_seed(0), grammar)
    read = prompt_sets.readable(grammar, concepts, target, 2000, torch.Generator().manual_seed(0))
    asked = {caption.text for name, some in found.keep.items() if name != "anchor" for caption in some}
    assert not asked & set(read) and len(set(read)) > 1000
    assert not any(target in text for text in read) and any(anchor in text for text in read)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("things:", "thing:", r"few\.yaml: things: missing parameter|few\.yaml: thing: unknown parameter"),
        ("synonyms: [jet]", "synonym: [jet]", r"few\.yaml: things\.airplane\.synonym: unknown parameter"),
        ("[canopy]", "[white parachute]", "few.yaml: the words for parachute share a word"),
        ("[jet]", "[canopy]", "'canopy' stands for parachute and for airplane"),
        ("  parachute:", "  glider:", "target: 'parachute' is unknown; there are glider"),
        ("  airplane:", "  rocket:", "anchor: 'airplane' is unknown"),
        ("synonyms: [canopy]", "synonyms: []", "parachute has no synonyms"),
        ('"a photo of {}"', "a photo", "templates: 'a photo' does not hold {} once"),
        ('given: ["a photo of {}", "{}"]', "given: []", r"templates\.given: the list is empty"),
        ('"a sketch of {}"', '"{}"', "prompt tiers given and T2 share"),
        ("[van gogh,", "[kite,", "'kite' is both a thing and a style"),
    ],
)
def test_a_faulty_file_ends_the_first_stage(work, old, new, words):
    assert PROMPTS.count(old) == 1
    (work / "data/prompts/few.yaml").write_text(PROMPTS.replace(old, new))
    with pytest.raises(UserError, match=words) as raised:
        write_plan(parameters(TASK | {"sample": TASK["sample"] | {"each": 100}}))
    assert "\n" not in str(raised.value) and not (work / "out/plan").exists()


def test_a_file_that_is_missing_ends_the_first_stage(work):
    with pytest.raises(UserError, match="cannot read .*data/prompts/none.yaml"):
        write_plan(parameters(TASK | {"prompts": "data/prompts/none.yaml"}))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("text_bases/sd/scheduler", {}, r"text_bases\.sd: scheduler is not used with `source`"),
        ("text_bases/sd/gate", {"steps": 9}, r"text_bases\.sd: gate is not used with `source`"),
        ("text_bases/sd", {}, r"text_bases\.sd: needs either `source`, or what a base is trained by: model is missing"),
        ("text_bases/emoji/denoiser", None, r"text_bases\.emoji: needs either `source`.*denoiser is missing"),
        ("concept_tasks/own/prompts", None, r"concept_tasks\.own: prompts is missing: 'sd' has a `source`"),
        ("concept_tasks/own/prompts", "mine.yaml", r"concept_tasks\.own\.prompts: String should match"),
        ("concept_tasks/own/base", "emoji", r"concept_tasks\.own\.prompts is not used: 'emoji' has prompts of its own"),
        ("text/bases", [], r"concept\.tasks: 'own' needs 'sd' in the list `text\.bases`"),
        ("robustness/tasks", ["own"], r"robustness\.tasks: no judge knows what 'sd', the base of 'own', draws"),
    ],
)
def test_parameters_that_do_not_go_together(tmp_path, path, value, words):
    made = parameters()
    made["text_bases"]["emoji"] = yaml.safe_load((ROOT / "params.yaml").read_text())["text_bases"]["emoji"]
    block = made
    *parents, last = path.split("/")
    for key in parents:
        block[key] = block = dict(block[key])
    block[last] = value
    if value is None:
        del block[last]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(UserError, match=words) as raised:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(raised.value)
