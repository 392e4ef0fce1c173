"""One code path for every scale: the papers' settings and a user's own images and model are nothing but parameters."""

import math
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from project import EVALUATE, PARAMETERS, ROOT, UNET, Project

from palinode import methods, params
from palinode.core.io import read_json
from palinode.data import prompt_file
from palinode.params.bases import ClassBase, TextBase
from palinode.params.concept_tasks import ConceptTask
from palinode.params.prompt_tasks import PromptTask
from palinode.pipeline.task_plans import training_of

REASONS = {
    "oracle_similarity_judge": "no model was trained without the forget set of mine",
    "inception_score_judge": "no labelled images",
    "fid_judge": "no labelled images",
    "integrity_judge": "no labelled images",
    "integrity_lpips_alex": "evaluate.lpips_trunk",
}


@pytest.fixture(scope="module")
def shipped() -> params.Params:
    return params.load(ROOT / "params.yaml")


def read_table(table: str, paper: str = "siss") -> dict:
    """One table of a paper."""
    tables = yaml.safe_load((ROOT / f"reference/{paper}.yaml").read_text())
    return next(entry for entry in tables if entry["id"] == table)


def numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def paper_rows(shipped: params.Params, task: str) -> dict[str, params.Row]:
    """Row id of the paper -> our enabled row at this task."""
    rows = {shipped.rows[name].paper: shipped.row(task, name) for name in shipped.images.rows}
    rows.pop(None, None)
    return rows


def test_tshirt_paper_is_the_papers_setting(shipped):
    task = shipped.image_tasks["tshirt-paper"]
    base = shipped.unconditional(task.base)
    table = read_table("siss_mnist_tshirt_table2")
    paper = table["setting"]
    rows = paper_rows(shipped, "tshirt-paper")
    data = base.data
    assert data.repeated is not None and data.repeated.images == task.forget
    assert f"{data.repeated.copies} copies" in paper["data"] and f"{data.size}x{data.size}" in paper["data"]
    assert "/".join(map(str, base.model["block_out_channels"])) in paper["model"]
    assert base.scheduler["num_train_timesteps"] == 1000 and base.scheduler["beta_schedule"] == "linear"
    assert base.pretrain.steps == table["rows"]["pretrained"]["steps"] == table["rows"]["retrain"]["steps"]
    assert set(rows) == set(table["rows"]) - {"pretrained", "retrain"}
    for name, row in rows.items():
        training = training_of(shipped, "images", "tshirt-paper", row)
        assert training.steps == table["rows"][name]["steps"], name
        assert training.lr == numbers(paper["optimizer"])[0] == 5e-5
        assert training.batch * training.accumulate == numbers(paper["batch"])[0] == 128
    assert rows["neggrad"].options["superfactor"] == paper["neggrad_superfactor"]
    assert rows["erasediff_siss"].options["eta"] == paper["erasediff_eta"]
    for name in ("siss_0.0", "siss_0.5", "siss_1.0", "siss_no_is"):
        assert rows[name].options["norm"] == paper["scaling_norm"], name
    assert paper["sampler"] == "DDPM ancestral, 50 steps" and (task.sample.sampler, task.sample.steps) == ("ddpm", 50)
    assert task.sample.count == paper["eval_images_p"]


def test_tshirt_paper_has_the_papers_network(shipped):
    from diffusers.models.unets.unet_2d import UNet2DModel

    base = shipped.unconditional("tshirt-paper")
    with torch.device("meta"):
        net = UNet2DModel(sample_size=base.data.size, in_channels=1, out_channels=1, **base.model)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert f"about {millions:.2f} M parameters" in read_table("siss_mnist_tshirt_table2")["setting"]["model"]


def test_celebahq_is_the_papers_setting(shipped):
    task = shipped.image_tasks["celebahq"]
    base = shipped.unconditional(task.base)
    table = read_table("siss_celebahq_table1")
    paper = table["setting"]
    rows = paper_rows(shipped, "celebahq")
    assert base.source in paper["model"] and f"{base.data.size}x{base.data.size}" in paper["data"]
    assert task.subjects == "each" and base.data.repeated is None, "one face a run"
    assert set(rows) == set(table["rows"]) - {"pretrained"}
    for name, row in rows.items():
        training = training_of(shipped, "images", "celebahq", row)
        assert (training.steps, training.lr) == (paper["steps"], paper["lr"]), name
        assert training.batch * training.accumulate == paper["effective_batch"]
        assert [*training.betas, training.weight_decay, training.clip] == numbers(paper["optimizer"])
        assert "constant lr" in paper["optimizer"] and (training.decay, training.warmup) == ("constant", 0)
    assert rows["erasediff_siss"].options["eta"] == paper["erasediff_eta"]
    assert rows["siss_0.5"].options["norm"] == rows["siss_no_is"].options["norm"] == paper["scaling_norm"]
    steps, count = numbers(paper["sampler"])
    assert (task.sample.sampler, task.sample.steps, task.sample.count) == ("ddpm", steps, count)
    assert task.evaluate.denoise_from == numbers(table["metrics"]["sscd"]["definition"])[-1]


def concept_task(shipped: params.Params, name: str) -> ConceptTask:
    return shipped.concept_tasks[name]


def text_base(shipped: params.Params, task: ConceptTask | PromptTask) -> TextBase:
    base = shipped.base_models[task.base]
    assert isinstance(base, TextBase)
    return base


@pytest.mark.parametrize("name, recipe", [("sd-object", "readme_parachute"), ("sd-style", "readme_van_gogh")])
def test_sd_tasks_are_docos_recipes(shipped, name, recipe):
    task = concept_task(shipped, name)
    table = read_table("doco_recipes", "doco")
    paper = table["setting"]
    published = table["rows"][recipe]
    assert text_base(shipped, task).source in paper["model"] and task.target.replace(" ", "_") in recipe
    assert [*task.unlearn.betas, task.unlearn.weight_decay] == numbers(paper["optimizer"])
    assert task.unlearn.batch * task.unlearn.accumulate == paper["batch"] and task.unlearn.clip == 1
    for row in (shipped.row(name, doco) for doco in ("doco", "doco-none", "doco-sum", "doco-repo")):
        assert row.lr == pytest.approx(published["lr"] * paper["batch"]), "an argument that its code multiplies"
        assert row.steps == published["steps"] and row.trainable == "cross-attention-kv"
        assert row.options["rate"] == published["d_lr"]
        assert row.options["warmup"] - published["warm_up"] == (1 if row.options.get("leak") else 0), "from 0"
        assert row.options["widths"] == [64, 128, 256, 512]
        assert not set(row.options) - {"warmup", "rate", "widths", "retain", "leak", "norm", "bos_detach"}
    assert task.data.retain == task.data.pairs == 1000
    assert (task.sample.guidance, task.sample.steps) == (6.0, 50)
    ablation = shipped.row(name, "concept-ablation")
    assert (ablation.lr, ablation.steps) == (pytest.approx(2e-6 * 8), 100)


def test_the_other_targets_of_docos_recipes_are_listed(shipped):
    concepts, grammar = prompt_file.read(ROOT / str(concept_task(shipped, "sd-object").prompts))
    assert {"parachute", "airplane", "church", "house", "r2d2", "robot"} <= set(concepts)
    assert {"van gogh", "a painting"} <= set(grammar.styles.all)


def test_imagenette_is_erasediffs_setting(shipped):
    task = concept_task(shipped, "imagenette")
    table = read_table("erasediff_imagenette_table3", "erasediff")
    steps, guidance, pictures = numbers(table["setting"]["sampler"])
    assert (task.sample.steps, task.sample.guidance, task.sample.each) == (steps, guidance, pictures)
    lr = numbers(table["setting"]["model"])[-1]
    assert {shipped.row("imagenette", row).lr for row in ("finetune", "erasediff-rl", "munba", "salun")} == {lr}
    row = shipped.row("imagenette", "erasediff-rl-fixed")
    method = methods.load(row.method, row.options)
    assert (row.steps, row.trainable, task.unlearn.batch) == (60, "all", 16), "step 60 is enough"
    assert (method.rule, method.eta, method.target) == ("fixed", 1.0, "rl")
    assert methods.load("salun", shipped.row("imagenette", "salun").options).alpha == 0.5
    concepts, grammar = prompt_file.read(ROOT / str(task.prompts))
    assert len(set(concepts) - {task.anchor}) == 10 and task.anchor == "pokemon"
    assert grammar.templates.training == ("an image of {}",)


def test_sd_memorized_is_the_siss_papers_setting(shipped):
    task = shipped.prompt_tasks["sd-memorized"]
    paper = read_table("siss_sd_success")["setting"]
    assert text_base(shipped, task).source in paper["model"]
    count, _, images = numbers(paper["data"])
    assert (task.choose.count, task.split.images, task.split.rule) == (count, images, "edit")
    assert [*task.unlearn.betas, task.unlearn.weight_decay] == numbers(paper["optimizer"])
    assert [task.unlearn.batch, task.unlearn.accumulate] == numbers(paper["batch"])
    steps, guidance, _, pictures = numbers(paper["sampler"])
    assert (task.sample.steps, task.sample.guidance, task.sample.count) == (steps, guidance, pictures)
    for name in ("naive", "siss-05", "siss-no-is", "erasediff-siss"):
        row = shipped.row("sd-memorized", name)
        assert (row.lr, row.steps) == (paper["lr"], paper["steps"])
    assert shipped.row("sd-memorized", "erasediff-siss").options["eta"] == paper["erasediff_eta"]


def test_cifar10_is_erasediffs_setting(shipped):
    task = concept_task(shipped, "cifar10-class")
    table = read_table("erasediff_cifar10_table1", "erasediff")
    paper = table["setting"]
    base = shipped.base_models[task.base]
    assert isinstance(base, ClassBase)
    assert task.target == 0 and "class 0 airplane" in table["table"]
    assert task.data.pairs == numbers(paper["data"])[1]
    width, *factors = numbers(paper["model"])
    assert base.model["block_out_channels"] == [width * factor for factor in factors]
    assert task.unlearn.batch == paper["batch"] and task.unlearn.clip == numbers(paper["optimizer"])[0]
    for name in ("erasediff-rl-fixed", "erasediff-rl", "erasediff-noise"):
        row = shipped.row("cifar10-class", name)
        assert row.lr == paper["lr"] and methods.load(row.method, row.options).eta == paper["lambda"]
        assert row.steps == paper["E"] * paper["S"] * math.ceil(4500 / paper["batch"])
    _, steps, weight = numbers(paper["sampler"])
    assert (task.sample.steps, task.sample.guidance) == (steps, 1 + weight)
    assert task.sample.each == numbers(paper["eval_images"])[2]
    assert (base.pretrain.steps, base.pretrain.batch, base.pretrain.lr) == (200000, 512, 2e-4)


# The papers' models, which are not here


@pytest.fixture
def paper(tmp_path) -> Project:
    """The shipped parameters in a folder with the shipped prompts."""
    for name in ("src", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    for name in ("prompts", "emoji"):
        (tmp_path / "data" / name).symlink_to(ROOT / "data" / name)
    project = Project(tmp_path)
    project.write_parameters(yaml.safe_load((ROOT / "params.yaml").read_text()))
    for kind in params.KINDS:
        project.change(f"{kind}/tasks", [])
    project.change("detection/bases", [])
    return project


def run_without_hub(project: Project, *stage: str) -> str:
    """The last line of a stage that finds no hub."""
    nowhere = project.environment | {"PYTHONPATH": "src", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = project.stage(*stage, check=False, env=nowhere)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_stable_diffusion_without_its_weights_says_what_to_do(paper):
    paper.change("bases", ["sd14"])
    paper.change("concept/tasks", ["sd-object"])
    paper.change("concept/rows", ["doco"])
    paper.call("plan")
    paper.call("prepare", "base", "sd14")
    for stage in ("judge", "gate"):
        paper.call(stage, "sd14")
    line = run_without_hub(paper, "pretrain", "sd14")
    assert re.fullmatch(r"error: .*'CompVis/stable-diffusion-v1-4'.*local path.*", line)
    assert not (paper.folder / "models/sd14/model").exists() and not paper.leftovers()


@pytest.mark.slow
def test_celebahq_without_its_files_says_what_to_do(paper):
    paper.change("bases", ["celebahq"])
    paper.change("images/tasks", ["celebahq"])
    paper.change("images/rows", ["siss-05"])
    line = paper.stage("plan", check=False).stderr
    assert re.fullmatch(r"error: .*no images at data/celebahq: put .* there, or change the path\n", line)
    pictures = paper.folder / "data/celebahq"
    pictures.mkdir()
    for name in ("10000.jpg", "10001.jpg"):
        Image.new("RGB", (256, 256)).save(pictures / name)
    paper.call("plan")
    line = run_without_hub(paper, "pretrain", "celebahq")
    assert re.fullmatch(r"error: .*'google/ddpm-celebahq-256'.*local path.*`source`.*", line)
    assert not (paper.folder / "models/celebahq/model").exists() and not paper.leftovers()


# A user's own images and model


def write_own(project: Project) -> None:
    """A folder of colour pictures and a diffusers folder, as a user brings them, and ten lines of parameters."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    folder = project.folder / "data/mine"
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    for i, image in enumerate(drawn):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    net = UNet2DModel(sample_size=16, **UNET)
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(project.folder / "mine")
    parameters = project.parameters
    parameters["base_models"] |= yaml.safe_load("""
        mine:
          kind: unconditional
          source: mine
          data: {images: data/mine, size: 16}
    """)
    parameters["image_tasks"] |= yaml.safe_load("""
        mine:
          base: mine
          forget: [07.png]
    """)
    small = {"unlearn": {"batch": 4}, "sample": {"steps": 3, "count": 16, "chunk": 4}, "evaluate": EVALUATE}
    parameters["image_tasks"]["mine"] |= small
    parameters["bases"] = ["mine"]
    parameters["images"] = {"tasks": ["mine"], "subjects": [0], "rows": ["siss-05"]}
    project.write_parameters(parameters)


def test_a_users_images_and_model_are_a_base_and_a_task(tmp_path):
    from diffusers import DDPMPipeline

    for name in ("src", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    project = Project(tmp_path)
    project.write_parameters(PARAMETERS)
    write_own(project)
    project.call("plan")
    project.call("prepare", "base", "mine")
    for stage in ("judge", "pretrain", "gate", "second_judge"):
        project.call(stage, "mine")
    project.call("bind")
    project.call("prepare", "images", "mine")
    for reference in ("base", "oracle", "real"):
        project.call("sample", "images", "mine", "reference", reference)
    for stage in ("unlearn", "sample", "evaluate"):
        project.call(stage, "images", "mine", "0", "siss-05", "0")
    cell = project.folder / "out/cells/mine/0/siss-05/0"
    metrics = read_json(cell / "evaluation/metrics.json")
    assert {name: metrics[name]["value"] for name in REASONS} == dict.fromkeys(REASONS)
    for name, words in REASONS.items():
        assert words in metrics[name]["reason"], name
    for name in ("nll_forget", "nll_held", "eps_error_forget", "forget_rate", "integrity_ssim", "nfe_forward"):
        assert np.isfinite(metrics[name]["value"]), name
    assert np.load(cell / "samples/samples.npy").shape == (16, 16, 16, 3)
    images = DDPMPipeline.from_pretrained(cell / "model")(2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 16, 16, 3)
