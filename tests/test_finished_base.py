"""Concept tasks on a finished text-to-image model: its prompts come from a file, its pictures from itself."""

import copy

import numpy as np
import pytest
import tiny
import torch
import yaml
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import ROOT, set_key
from tiny import run, run_cell, write_plan

from palinode import params
from palinode.core.errors import UserError
from palinode.core.images import to_model
from palinode.core.io import absence, read_array, read_json
from palinode.data import prompt_file, prompt_sets
from palinode.metrics import integrity
from palinode.models import loading, text_to_image
from palinode.sampling.prompted import draw
from palinode.tasks.concept import training_data
from palinode.training import concept_batches

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

PROMPTS = """
templates: {training: ["a photo of {}", "{}"], new: ["a sketch of {}", "look at {}"]}
attributes: {training: [at sunset], new: [in the snow]}
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
    "uce": {"method": "uce"},
    "salun": {"method": "salun"},
}
TASK = {
    "base": "sd",
    "prompts": "data/prompts/few.yaml",
    "target": "parachute",
    "anchor": "airplane",
    "data": {"retain": 5, "pairs": 4, "fisher": 1, "fisher_steps": 1, "saliency": 1},
    "unlearn": {"batch": 2, "gradient_checkpointing": True},
    "sample": {"steps": 2, "each": 3, "chunk": 4},
    "bootstrap": 10,
}
REFERENCES = ("base", "oracle", "other-seed")
NOT_JUDGED = "the base was trained elsewhere: no judge knows what it draws"


def parameters(**changes) -> dict:
    """One concept task on a finished base; changes: blocks of the task."""
    made = tiny.concept_parameters({"own": TASK | changes}, ROWS)
    made["bases"] = ["sd"]
    made["base_models"]["sd"] = {"kind": "text", "source": "weights", "sampler": {"steps": 10}}
    return made


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with prompts and the folder of an untrained model; stages are called, not started."""
    for name in ("src", "stages", "dvc.yaml", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data/prompts").mkdir(parents=True)
    (tmp_path / "data/prompts/few.yaml").write_text(PROMPTS)
    (tmp_path / "data/emoji").symlink_to(ROOT / "data/emoji")
    words = [word for text in PROMPTS.replace(",", " ").split() if (word := text.strip('"[]{}:')).isalpha()]
    words += ["a", "an", "and", "in", "the", "style", "of"]
    text_to_image.save(text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, words, 1), tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


def make_base() -> None:
    """Every stage of the base: all but `pretrain` say that there is nothing to do."""
    run("prepare", "base", "sd")
    for script in ("judge", "pretrain", "gate", "second_judge"):
        run(script, "sd")
    run("bind")


def prepare(made: dict | None = None) -> None:
    write_plan(made or parameters())
    make_base()
    run("prepare", "concept", "own", "0")


def test_the_stages_of_a_finished_base_name_it_and_say_what_is_absent(work):
    prepare()
    models = work / "models/sd"
    assert read_json(models / "model/source.json") == {"source": "weights"}
    assert sorted(path.name for path in (models / "model").iterdir()) == ["source.json"]
    assert absence(models / "judge") == absence(models / "gate") == absence(models / "second-judge") == NOT_JUDGED
    assert absence(models / "training") == "sd is weights, which is not trained here"
    assert "finished model" in absence(work / "out/data/sd")
    bound = work / "out/bases/own"
    assert (bound / "base/source.json").exists() and not (bound / "base/unet").exists()
    assert absence(bound / "judge") == NOT_JUDGED
    assert absence(bound / "0/oracle") == "no model was trained without parachute"


def test_a_tokenizer_without_its_merges_is_refused(work):
    write_plan(parameters())
    make_base()
    for name in ("tokenizer.json", "merges.txt"):
        (work / "weights/tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="weights/tokenizer has no merges.txt and no tokenizer.json"):
        run("prepare", "concept", "own", "0")
    assert not (work / "out/tasks/own/0").exists()


def test_pictures_are_the_models_own(work):
    prepare()
    data = concept_batches.load(work / "out/tasks/own/0/training")
    model = loading.load(work / "models/sd/model")
    assert data.retain.shape == (5, 4, 8, 8) and data.forget.shape == data.anchor.shape == (4, 4, 8, 8)
    retained = [data.prompts[i] for i in data.retain_prompt]
    assert not any("parachute" in text or "canopy" in text for text in retained)
    for target, anchor in zip(data.forget_prompt, data.anchor_prompt, strict=True):
        assert data.prompts[target].replace("a parachute", "an airplane") == data.prompts[anchor]
    drawn = draw(model, [data.prompts[i] for i in data.forget_prompt], (1, "own shown"), 3.0, 2, chunk=4)
    with torch.inference_mode():
        assert torch.equal(model.encode(to_model(drawn)), data.forget)
    assert not (work / "out/tasks/own/0/real.npy").exists()


def test_a_killed_preparation_continues(work, monkeypatch):
    write_plan(parameters())
    make_base()

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_data, "_assemble", die)
        with pytest.raises(KeyboardInterrupt):
            run("prepare", "concept", "own", "0")
    kept = sorted((work / "scratch").rglob("chunk-*.npy"))
    assert len(kept) == 3, "two chunks of five retained pictures, one of four of the target"
    kept[0].unlink()
    run("prepare", "concept", "own", "0")
    made = work / "out/tasks/own/0/training/arrays.npz"
    continued = made.read_bytes()
    run("prepare", "concept", "own", "0")
    assert continued == made.read_bytes() and not list((work / "scratch").iterdir())


@pytest.mark.slow
def test_a_cell_runs_to_the_report_without_a_judge(work):
    prepare()
    run("importance", "concept", "own", "0")
    for script in ("sample", "evaluate"):
        for reference in REFERENCES:
            run(script, "concept", "own", "0", "reference", reference)
    for row in ROWS:
        run_cell("concept", "own", "0", row)
    cells = work / "out/cells/own/0"
    written = read_json(work / "out/tasks/own/0/prompts/prompt_sets.json")
    sets = [*written["forget"], *written["retain"]]
    retained = [name for name in prompt_sets.RETAIN_SETS if name != prompt_sets.FREE]  # the file has no `free`
    assert sets == [*prompt_sets.PROMPT_SETS, *retained]
    assert len(read_array(cells / "uce/0/samples/samples.npy")) == 3 * len(sets)
    metrics = read_json(cells / "salun/0/evaluation/metrics.json")
    judged = (
        "ua_training_prompts",
        "ua_gap",
        "target_probability",
        "accuracy_near",
        "alignment_far",
        "kid_anchor_judge",
        "fid_kept_judge",
        "integrity_near_judge",
        "drift_training_prompts_judge",
    )
    for name in judged:
        assert metrics[name]["value"] is None and metrics[name]["reason"] == NOT_JUDGED, name
    assert "no real pictures" in metrics["fid_kept_real_judge"]["reason"]
    assert "lpips_trunk" in metrics["integrity_near_lpips_alex"]["reason"]
    assert metrics["nfe_forward"]["value"] > 0
    run("report")
    html = (work / "report/index.html").read_text()
    assert NOT_JUDGED in html and "weights, as it is." in html
    assert "Contact strip other domain" in html


def test_drift_is_measured_by_a_network_that_is_named(work, monkeypatch):
    def load_trunk(path):
        assert path == "alexnet.pth"
        return lambda a, b: torch.from_numpy(np.abs(a.astype(float) - b).mean((1, 2, 3)))

    monkeypatch.setattr(integrity, "lpips_alex", load_trunk)
    (work / "alexnet.pth").write_bytes(b"")
    prepare(parameters(lpips_trunk="alexnet.pth"))
    for reference in REFERENCES:
        run("sample", "concept", "own", "0", "reference", reference)
    run("evaluate", "concept", "own", "0", "reference", "other-seed")
    metrics = read_json(work / "out/cells/own/0/other-seed/0/evaluation/metrics.json")
    assert metrics["integrity_far_lpips_alex"]["value"] == 0 and metrics["drift_far_lpips_alex"]["value"] > 0
    assert metrics["integrity_far_judge"]["value"] is None


def test_a_file_of_classes_gives_fewer_prompt_sets():
    concepts, grammar = prompt_file.read(ROOT / "data/prompts/imagenette.yaml")
    sets = prompt_sets.of_captions(concepts, "tench", "pokemon", 8, torch.Generator().manual_seed(0), grammar)
    assert list(sets.forget) == ["training prompts", "new templates", "synonyms", "compositions"]
    assert list(sets.retain) == ["anchor", "near", "far", "null prompt", "free wording"]
    assert {caption.text for caption in sets.forget["training prompts"]} == {"an image of a tench"}
    assert all(len(captions) == 8 for captions in sets.all.values()), "captions come again"
    assert {caption.concepts for caption in sets.retain["near"]} == {("english springer",)}


@pytest.mark.parametrize(
    "target, anchor",
    [("parachute", "airplane"), ("church", "house"), ("r2d2", "robot"), ("van gogh", "a painting")],
)
def test_what_is_kept_is_never_asked_for_as_training_read_it(target, anchor):
    concepts, grammar = prompt_file.read(ROOT / "data/prompts/objects.yaml")
    sets = prompt_sets.of_captions(concepts, target, anchor, 10**5, torch.Generator().manual_seed(0), grammar)
    read = prompt_sets.readable(grammar, concepts, target, 2000, torch.Generator().manual_seed(0))
    asked = {caption.text for name, captions in sets.retain.items() if name != "anchor" for caption in captions}
    assert not asked & set(read) and len(set(read)) > 1000
    assert not any(target in text for text in read) and any(anchor in text for text in read)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("things:", "thing:", r"few\.yaml: things: missing parameter|few\.yaml: thing: unknown parameter"),
        ("synonyms: [jet]", "synonym: [jet]", r"few\.yaml: things\.airplane\.synonym: unknown parameter"),
        ("[canopy]", "[white parachute]", "few.yaml: the words for parachute share a word"),
        ("[jet]", "[canopy]", "'canopy' stands for parachute and for airplane"),
        ("  parachute:", "  glider:", "concept_tasks.own: target: 'parachute' is unknown; there are glider"),
        ("  airplane:", "  rocket:", "concept_tasks.own: anchor: 'airplane' is unknown"),
        ("synonyms: [canopy]", "synonyms: []", "parachute has no synonyms"),
        ('"a photo of {}"', "a photo", "templates: 'a photo' does not hold {} once"),
        ('training: ["a photo of {}", "{}"]', "training: []", r"templates\.training: the list is empty"),
        ('"a sketch of {}"', '"{}"', "prompt sets training and new templates share"),
        ("[van gogh,", "[kite,", "'kite' is both a thing and a style"),
    ],
)
def test_a_faulty_file_ends_the_first_stage(work, old, new, words):
    assert PROMPTS.count(old) == 1
    (work / "data/prompts/few.yaml").write_text(PROMPTS.replace(old, new))
    with pytest.raises(UserError, match=words) as raised:
        write_plan(parameters(sample=TASK["sample"] | {"each": 100}))
    assert "\n" not in str(raised.value) and not (work / "out/plan").exists()


def test_a_file_that_is_missing_ends_the_first_stage(work):
    with pytest.raises(UserError, match="cannot read .*data/prompts/none.yaml"):
        write_plan(parameters(prompts="data/prompts/none.yaml"))


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("base_models/sd/scheduler", {}, r"base_models\.sd: scheduler is not used with `source`"),
        ("base_models/sd/gate", {"style": 0.5}, r"base_models\.sd: gate is not used with `source`"),
        ("base_models/sd", {"kind": "text"}, r"base_models\.sd: needs either `source`, or .*: model is missing"),
        ("base_models/mini/denoiser", None, r"base_models\.mini: needs either `source`.*denoiser is missing"),
        ("base_models/sd-cat", {"of": "sd", "without": "cat"}, r"sd-cat\.of: 'sd' is a finished model, which is not"),
        ("concept_tasks/own/prompts", None, r"concept_tasks\.own: prompts is missing: 'sd' has a `source`"),
        ("concept_tasks/own/prompts", "few.yaml", r"concept_tasks\.own\.prompts: .*'\^data/'"),
        ("concept_tasks/own/base", "mini", r"concept_tasks\.own\.prompts is not used: 'mini' has prompts of its own"),
        ("bases", ["two"], r"concept\.tasks: 'own' needs 'sd' in the list `bases`"),
        ("attacks/tasks", ["own"], r"attacks\.tasks: no judge knows what the base of 'own' draws"),
    ],
)
def test_parameters_that_do_not_go_together(tmp_path, path, value, words):
    made = copy.deepcopy(parameters())
    made["bases"] = ["sd", "mini"]
    set_key(made, path, value)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(UserError, match=words) as raised:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(raised.value)
