"""Tiny settings of every kind of base and task, and a folder in which their stages run in this process."""

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import PARAMETERS, ROOT, UNET, call_stage

from palinode import params
from palinode.classifiers import digits, storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.io import write_json
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import ground_truth, mitigation, splitting
from palinode.metrics.second_judge import Probe, SecondJudge
from palinode.models import class_conditional, text_to_image, unconditional
from palinode.params.bases import DDPM_SCHEDULER
from palinode.pipeline import planning

SHORT = {"steps": 1, "batch": 2, "lr": 1e-3}
ROW = {"lr": 1e-3, "steps": 2}
CLASS_BASE = {
    "kind": "class",
    "images": "data/mnist/judge-test.npy",
    "judge": {"train": "data/mnist/judge-train.npy", "test": "data/mnist/judge-test.npy"},
    "size": 16,
    "channels": 1,
    "model": UNET,
    "pretrain": SHORT,
}
TEXT_BASE = {
    "kind": "text",
    "model": TEXT_MODEL,
    "scheduler": TEXT_SCHEDULER,
    "autoencoder": SHORT,
    "contrastive": SHORT,
    "denoiser": SHORT,
}
CONCEPT = {
    "unlearn": {"batch": 2},
    "data": {"retain": 8, "pairs": 6, "fisher": 1, "fisher_steps": 2, "saliency": 2},
    "sample": {"steps": 2, "each": 3},
    "bootstrap": 10,
}
PROMPT_TASK = {
    "base": "mini",
    "choose": {"count": 2, "among": 3},
    "split": {"images": 8, "trial": 2, "edits": 3, "agree": 0.01},
    "sample": {"steps": 2, "count": 4, "every": 2, "ordinary": 4},
    "real": 16,
    "neighbours": 1,
    "unlearn": {"steps": 4, "batch": 2},
    "bootstrap": 10,
}
SCORES = {"distant glacier under glass": 3.0, "borrowed ladder until friday": 2.5, "a cat": 2.0, "a dog": 0.5}


def base_parameters(rows: dict[str, dict]) -> dict:
    """A class-conditional base `two`, a text-to-image base `mini`, and rows; no task is enabled."""
    made = copy.deepcopy(PARAMETERS)
    made["bases"] = ["two", "mini"]
    made["images"] = {"tasks": [], "subjects": [0], "rows": []}
    made["base_models"] |= copy.deepcopy({"two": CLASS_BASE, "mini": TEXT_BASE})
    made["rows"] |= {name: ROW | row for name, row in rows.items()}
    return made


def concept_parameters(tasks: dict[str, dict], rows: dict[str, dict]) -> dict:
    """Tasks of the kind `concept` of the tiny bases, all of them and all rows enabled."""
    made = base_parameters(rows)
    made["concept"] = {"tasks": list(tasks), "subjects": [0], "rows": list(rows)}
    made["concept_tasks"] = copy.deepcopy({name: CONCEPT | task for name, task in tasks.items()})
    return made


def prompt_parameters(rows: dict[str, dict], enabled: Iterable[str], **changes) -> dict:
    """One task of the kind `prompts` of the tiny bases, `few`; enabled: of `rows`; changes: blocks of the task."""
    made = base_parameters(rows)
    made["detection"] = {"bases": ["mini"]}
    made["prompts"] = {"tasks": ["few"], "subjects": [0, 1, "sequential"], "rows": list(enabled)}
    made["prompt_tasks"] = {"few": copy.deepcopy(PROMPT_TASK) | changes}
    return made


def make_folder(folder: Path, monkeypatch) -> Path:
    """Make `folder` a working folder with this project's code, graph and data; stages are called, not started."""
    for name in ("src", "stages", "dvc.yaml", "data"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PALINODE_SCRATCH", str(folder / "scratch"))
    return folder


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """The models of the bases `two` and `mini`, untrained, made once; a test module imports this fixture by name."""
    folder = tmp_path_factory.mktemp("untrained") / "models"
    place_class_base(folder)
    place_text_base(folder)
    return folder


def place_class_base(models: Path) -> None:
    """The base `two` with its judges, all untrained."""
    config = UNET | {"sample_size": 16, "in_channels": 1, "out_channels": 1}
    unconditional.save(class_conditional.create(config, DDPM_SCHEDULER, 10, 1), models / "two/model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        storage.save(digits.Judge(16, 1, 10), models / "two/judge", {})
    place_second_judge(models / "two", {"class": 10})


def place_text_base(models: Path) -> None:
    """The base `mini` with its judges, all untrained."""
    corpus = EmojiCorpus.read(ROOT / "data/emoji")
    text_to_image.save(text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, 1), models / "mini/model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        storage.save(SceneJudge(len(corpus.concepts), 5), models / "mini/judge", {})
    place_second_judge(models / "mini", {"concept": len(corpus.concepts) + 1, "style": 6})


def place_second_judge(base: Path, classes: dict[str, int]) -> None:
    """The second judge of a base, untrained, on the features of EfficientNet-Lite0; classes by question."""
    generator = np.random.default_rng(0)
    size = 2 * (16 + 24 + 40 + 112 + 320) + 1280
    probes = {
        question: Probe(np.zeros(size), np.ones(size), generator.normal(size=(size + 1, count)))
        for question, count in classes.items()
    }
    (base / "second-judge").mkdir(parents=True)
    SecondJudge(None, probes).save(base / "second-judge")


def place_scores(models: Path, held_out: dict) -> None:
    """What `detect` would have found out about four prompts of the base `mini`."""
    folder = models / "mini/detect"
    write_json(folder / "metrics.json", {"scores": {"noise_norm_first": {"held_out": held_out}}})
    lines = [f"{text},verbatim,noise_norm_first,{score}" for text, score in SCORES.items()]
    (folder / "scores.csv").write_text("\n".join(["prompt,kind,detector,score", *lines]) + "\n")


def let_prompts_count(monkeypatch) -> None:
    """Let an untrained base draw copies: any picture matches a fixed one, and every second one copies it."""
    monkeypatch.setattr(ground_truth, "COPY", 10.0)
    monkeypatch.setattr(splitting, "COPY", 0.0)
    monkeypatch.setattr(mitigation, "ITERATIONS", 1)
    monkeypatch.setattr(ground_truth.LabelledGroundTruth, "copies", every_second)


def every_second(self: object, images: np.ndarray, *_: object) -> np.ndarray:
    """In the place of a ground truth's `copies`: every second picture is one."""
    return np.arange(len(images)) % 2 == 0


def write_plan(parameters: dict) -> None:
    """The stage `plan`, of parameters that need no file."""
    planning.write_all(params.Params.model_validate(parameters), Path("."), Path("out/plan"))


def run(script: str, *arguments: str) -> None:
    """One stage of the working folder."""
    call_stage(script, *arguments)


def run_cell(kind: str, task: str, subject: str, row: str, seed: str = "0") -> Path:
    """Unlearn, sample and evaluate; the cell's folder."""
    for script in ("unlearn", "sample", "evaluate") if kind != "prompts" else ("unlearn", "evaluate"):
        run(script, kind, task, subject, row, seed)
    return Path("out/cells") / task / subject / row / seed
