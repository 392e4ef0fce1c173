"""One code path for every scale: the papers' settings and a user's own images and model are nothing but parameters."""

import copy
import math
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from project import PARAMETERS, ROOT, Project

from palinode import methods, params
from palinode.core.io import read_json
from palinode.data import prompt_file

REASONS = {"oracle_similarity_judge": "trains none", "inception_score_judge": "no labelled images",
           "fid_judge": "no labelled images", "integrity_judge": "no labelled images",
           "integrity_lpips_alex": "evaluate.lpips_trunk"}  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> params.Params:
    return params.load(ROOT / "params.yaml")


def setting(table: str, paper: str = "siss") -> dict:
    """One table of a paper."""
    tables = yaml.safe_load((ROOT / f"reference/{paper}.yaml").read_text())
    return next(entry for entry in tables if entry["id"] == table)


def numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def paper_rows(shipped: params.Params, task: str) -> dict[str, params.Row]:
    """Row id of the paper -> our enabled row at this task."""
    rows = {shipped.rows[name].paper: shipped.row(task, name) for name in shipped.data.rows}
    rows.pop(None, None)
    return rows


def unlearning(shipped: params.Params, task: str, row: params.Row) -> params.Training:
    return params.Training(steps=row.steps, lr=row.lr, **shipped.tasks[task].unlearn.model_dump())


def test_tshirt_paper_is_the_papers_setting(shipped):
    task, table = shipped.tasks["tshirt-paper"], setting("siss_mnist_tshirt_table2")
    paper, rows = table["setting"], paper_rows(shipped, "tshirt-paper")
    assert f"{task.data.copies} copies" in paper["data"] and f"{task.data.size}x{task.data.size}" in paper["data"]
    assert "/".join(map(str, task.model["block_out_channels"])) in paper["model"]
    assert task.scheduler["num_train_timesteps"] == 1000 and task.scheduler["beta_schedule"] == "linear"
    assert task.pretrain.steps == table["rows"]["pretrained"]["steps"] == table["rows"]["retrain"]["steps"]
    assert set(rows) == set(table["rows"]) - {"pretrained", "retrain"}
    for name, row in rows.items():
        training = unlearning(shipped, "tshirt-paper", row)
        assert training.steps == table["rows"][name]["steps"], name
        assert training.lr == numbers(paper["optimizer"])[0] == 5e-5
        assert training.batch * training.accumulate == numbers(paper["batch"])[0] == 128
    assert rows["neggrad"].options["superfactor"] == paper["neggrad_superfactor"]
    assert rows["erasediff_siss"].options["eta"] == paper["erasediff_eta"]
    assert shipped.rows["siss-05-fixed"].options["norm"] == paper["scaling_norm"]
    assert paper["sampler"] == "DDPM ancestral, 50 steps" and (task.sample.sampler, task.sample.steps) == ("ddpm", 50)
    assert task.sample.count == paper["eval_images_p"]


def test_tshirt_paper_has_the_papers_network(shipped):
    from diffusers.models.unets.unet_2d import UNet2DModel

    task = shipped.tasks["tshirt-paper"]
    with torch.device("meta"):
        net = UNet2DModel(sample_size=task.data.size, in_channels=1, out_channels=1, **task.model)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert f"about {millions:.2f} M parameters" in setting("siss_mnist_tshirt_table2")["setting"]["model"]


def test_celebahq_is_the_papers_setting(shipped):
    task, table = shipped.tasks["celebahq"], setting("siss_celebahq_table1")
    paper, rows = table["setting"], paper_rows(shipped, "celebahq")
    assert task.base in paper["model"] and f"{task.data.size}x{task.data.size}" in paper["data"]
    assert len(task.data.forget) == 1 and task.data.copies == 1, "one face per run"
    assert set(rows) == set(table["rows"]) - {"pretrained"}
    for name, row in rows.items():
        training = unlearning(shipped, "celebahq", row)
        assert (training.steps, training.lr) == (paper["steps"], paper["lr"]), name
        assert training.batch * training.accumulate == paper["effective_batch"]
        assert [*training.betas, training.weight_decay, training.clip] == numbers(paper["optimizer"])
        assert "constant lr" in paper["optimizer"] and (training.decay, training.warmup) == ("constant", 0)
    assert rows["erasediff_siss"].options["eta"] == paper["erasediff_eta"]
    steps, count = numbers(paper["sampler"])
    assert (task.sample.sampler, task.sample.steps, task.sample.count) == ("ddpm", steps, count)
    assert task.evaluate.denoise_from == numbers(table["metrics"]["sscd"]["definition"])[-1]


@pytest.mark.parametrize("name,recipe", [("sd-object", "readme_parachute"), ("sd-style", "readme_van_gogh")])
def test_sd_tasks_are_docos_recipes(shipped, name, recipe):
    task, table = shipped.concept_tasks[name], setting("doco_recipes", "doco")
    paper, numbers_of = table["setting"], table["rows"][recipe]
    assert shipped.text_bases[task.base].source in paper["model"] and task.target.replace(" ", "_") in recipe
    assert [*task.unlearn.betas, task.unlearn.weight_decay] == numbers(paper["optimizer"])
    assert task.unlearn.batch * task.unlearn.accumulate == paper["batch"] and task.unlearn.clip == 1
    for row in (shipped.row(name, it) for it in ("doco", "doco-none", "doco-sum", "doco-repo")):
        assert row.lr == pytest.approx(numbers_of["lr"] * paper["batch"]), "an argument that its code multiplies"
        assert row.steps == numbers_of["steps"] and row.trainable == "cross-attention-kv"
        assert (row.options["warmup"], row.options["rate"]) == (numbers_of["warm_up"], numbers_of["d_lr"])
        assert row.options["widths"] == [64, 128, 256, 512] and not set(row.options) - {"warmup", "rate", "widths",
                                                                                        "retain", "leak"}  # fmt: skip
    assert task.data.kept == task.data.pairs == 1000 and (task.sample.guidance, task.sample.steps) == (6.0, 50)
    ablation = shipped.row(name, "concept-ablation")
    assert (ablation.lr, ablation.steps) == (pytest.approx(2e-6 * 8), 100)


def test_the_other_targets_of_docos_recipes_are_listed(shipped):
    concepts, grammar = prompt_file.read(ROOT / shipped.concept_tasks["sd-object"].prompts)
    assert {"parachute", "airplane", "church", "house", "r2d2", "robot"} <= set(concepts)
    assert {"van gogh", "a painting"} <= set(grammar.styles.all)


def test_imagenette_is_erasediffs_setting(shipped):
    task, table = shipped.concept_tasks["imagenette"], setting("erasediff_imagenette_table3", "erasediff")
    steps, guidance, pictures = numbers(table["setting"]["sampler"])
    assert (task.sample.steps, task.sample.guidance, task.sample.each) == (steps, guidance, pictures)
    lr = numbers(table["setting"]["model"])[-1]
    assert {shipped.row("imagenette", row).lr for row in ("finetune", "erasediff-rl", "munba", "salun")} == {lr}
    row = shipped.row("imagenette", "erasediff-rl-fixed")
    method = methods.load(row.method, row.options)
    assert (row.steps, row.trainable, task.unlearn.batch) == (60, "all", 16), "step 60 is enough"
    assert (method.rule, method.eta, method.target) == ("fixed", 1.0, "rl")
    assert methods.load("salun", shipped.row("imagenette", "salun").options).alpha == 0.5
    concepts, grammar = prompt_file.read(ROOT / task.prompts)
    assert len(set(concepts) - {task.anchor}) == 10 and task.anchor == "pokemon"
    assert grammar.templates.given == ("an image of {}",)


def test_sd_memorized_is_the_siss_papers_setting(shipped):
    task, paper = shipped.prompt_tasks["sd-memorized"], setting("siss_sd_success")["setting"]
    assert shipped.text_bases[task.base].source in paper["model"]
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
    task, table = shipped.concept_tasks["cifar10-class"], setting("erasediff_cifar10_table1", "erasediff")
    paper, base = table["setting"], shipped.class_bases[task.base]
    assert task.target == 0 and "class 0 airplane" in table["table"] and task.data.pairs == numbers(paper["data"])[1]
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


def test_stable_diffusion_without_its_weights_says_what_to_do(tmp_path):
    project = Project.create(tmp_path / "project", yaml.safe_load((ROOT / "params.yaml").read_text()))
    shutil.copytree(ROOT / "data/prompts", project.folder / "data/prompts")
    for path, value in (("text/bases", ["sd14"]), ("concept/tasks", ["sd-object"]), ("concept/rows", ["doco"])):
        project.change(path, value)
    project.call("plan")
    for stage in ("judge_scenes", "gate_text"):
        project.call(stage, "sd14")
    nowhere = project.environment | {"PYTHONPATH": "src", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    said = project.stage("pretrain_text", "sd14", check=False, env=nowhere).stderr.splitlines()
    assert re.fullmatch(r"error: .*'CompVis/stable-diffusion-v1-4'.*local path.*", said[-1])
    assert not (project.folder / "models/sd14/base").exists() and not project.leftovers()


def test_celebahq_without_its_files_says_what_to_do(tmp_path):
    project = Project.create(tmp_path / "project", yaml.safe_load((ROOT / "params.yaml").read_text()))
    project.change("data/tasks", ["celebahq"])
    project.change("data/rows", ["siss-05"])
    project.call("plan")
    images = project.stage("prepare", "celebahq", check=False).stderr
    assert re.fullmatch(r"error: .*data/celebahq.*`data`.*\n", images)
    nowhere = project.environment | {"PYTHONPATH": "src", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    weights = project.stage("pretrain", "celebahq", "base", check=False, env=nowhere).stderr.splitlines()
    assert re.fullmatch(r"error: .*'google/ddpm-celebahq-256'.*local path.*`base`.*", weights[-1])
    assert not list(project.folder.glob("out/data/celebahq")) + list(project.folder.glob("models/celebahq/base"))
    assert not project.leftovers()


def own_task(project: Project) -> None:
    """A folder of colour pictures and a diffusers folder, as a user brings them, and six lines of parameters."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    (project.folder / "mine").mkdir()
    drawn = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    for i, image in enumerate(drawn):
        Image.fromarray(image).save(project.folder / f"mine/{i:02d}.png")
    net = UNet2DModel(sample_size=16, **PARAMETERS["tasks"]["tiny"]["model"])
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(project.folder / "mine/model")
    parameters = project.parameters
    parameters["tasks"] |= yaml.safe_load("""
        mine:
          base: mine/model
          data:
            images: mine
            forget: [07.png]
            size: 16
    """)
    parameters["tasks"]["mine"] |= {key: PARAMETERS["tasks"]["tiny"][key] for key in ("unlearn", "sample", "evaluate")}
    project.write_parameters(parameters)
    project.change("data/tasks", ["mine"])
    project.change("data/rows", ["siss-05"])


def test_a_users_images_and_model_are_a_task_in_six_lines(tmp_path):
    from diffusers import DDPMPipeline

    project = Project.create(tmp_path / "project", copy.deepcopy(PARAMETERS))
    own_task(project)
    for stage, *arguments in (
        ("plan",), ("prepare", "mine"), ("judge", "mine"), ("pretrain", "mine", "base"), ("pretrain", "mine", "oracle"),
        ("gate", "mine"), ("sample", "mine", "base", "0"), ("sample", "mine", "oracle", "0"),
        ("unlearn", "mine", "siss-05", "0"), ("sample", "mine", "siss-05", "0"), ("evaluate", "mine", "siss-05", "0"),
    ):  # fmt: skip
        project.stage(stage, *arguments)
    cell = project.folder / "out/cells/mine/siss-05/0"
    metrics = read_json(cell / "evaluation/metrics.json")
    assert {name: metrics[name]["value"] for name in REASONS} == dict.fromkeys(REASONS)
    assert all(words in metrics[name]["reason"] for name, words in REASONS.items())
    for name in ("nll_forget", "nll_held", "eps_error_forget", "forget_rate", "integrity_ssim", "forward_passes"):
        assert np.isfinite(metrics[name]["value"]), name
    assert np.load(cell / "samples/samples.npy").shape == (16, 16, 16, 3)
    images = DDPMPipeline.from_pretrained(cell / "model")(2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 16, 16, 3)
