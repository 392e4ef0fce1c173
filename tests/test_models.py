"""Model folders: diffusers can load what is written; damage is named."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from palinode.core import images
from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.models import files, unconditional

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(model, tmp_path):
    unconditional.save(model, tmp_path / "model")
    return tmp_path / "model"


def test_diffusers_loads_and_samples_what_is_saved(model, folder):
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(folder)
    image = pipeline(batch_size=1, num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 8, 8, 1)
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([3, 700])
    torch.testing.assert_close(pipeline.unet(x, t).sample, model.predict(x, t))


def test_loading_gives_back_the_same_model_from_either_layout(model, folder, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(folder / "unet", flat)
    shutil.copy(folder / "scheduler" / "scheduler_config.json", flat)
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([3, 700])
    for place in (folder, flat):
        torch.testing.assert_close(unconditional.load(place).predict(x, t), model.predict(x, t), rtol=0, atol=0)


def test_saving_twice_gives_the_same_bytes_and_no_path(folder, tmp_path):
    unconditional.save(unconditional.load(folder), tmp_path / "again")
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes(), file
    assert str(tmp_path) not in (folder / "unet" / "config.json").read_text()


def test_diffusers_and_transformers_are_imported_with_the_first_model_only():
    """In a process of its own, since what is imported depends on what ran before."""
    program = """
import sys
from palinode.models import guidance, loading, prompt_tuning
assert not {"diffusers", "transformers"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})


def test_half_precision_is_stored_and_read_as_float32(model, tmp_path):
    unconditional.save(model, tmp_path / "half", torch.float16)
    loaded = unconditional.load(tmp_path / "half")
    assert next(loaded.net.parameters()).dtype == torch.float32
    assert next(model.net.parameters()).dtype == torch.float32  # the model itself is not rounded


def test_images_survive_the_round_trip():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = images.to_model(pixels)
    assert x.shape == (1, 1, 16, 16)
    assert float(x.min()) == -1
    assert float(x.max()) == 1
    assert np.array_equal(images.to_images(x), pixels)


def test_a_truncated_checkpoint_is_named(folder):
    weights = folder / "unet" / files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot read the weights in .*unet"):
        unconditional.load(folder)


def test_a_checkpoint_of_another_network_is_named(folder):
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"block_out_channels": [8, 32]}))
    with pytest.raises(UserError, match="cannot read the weights in .*unet"):
        unconditional.load(folder)


def test_a_missing_checkpoint_says_where_it_was_looked_for(folder):
    (folder / "unet" / files.WEIGHTS).unlink()
    with pytest.raises(UserError, match="no diffusion_pytorch_model.safetensors in .*unet"):
        unconditional.load(folder)


def test_a_pickle_is_refused(folder):
    (folder / "unet" / files.WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        unconditional.load(folder)


def test_a_hub_id_that_cannot_be_reached_says_how_to_point_at_a_folder(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="put the local path of a diffusers folder in the base's `source`"):
        unconditional.load("nobody/no-such-model")


def test_another_prediction_type_is_refused(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(UserError, match="prediction_type 'v_prediction' is not supported"):
        unconditional.load(folder)


def test_what_is_fetched_of_a_model_on_the_hub(monkeypatch, tmp_path):
    """The files of Stable Diffusion 1.4, and of an older DDPM repository."""
    weights = "diffusion_pytorch_model"
    wanted = [
        "model_index.json",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        f"unet/{weights}.safetensors",
        "config.json",
        f"{weights}.safetensors",
    ]
    unwanted = [
        "README.md",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        f"unet/{weights}.bin",
        f"unet/{weights}.non_ema.safetensors",
    ]

    def fetch(source, revision, **patterns):
        assert set(filter_repo_objects(wanted + unwanted, **patterns)) == set(wanted)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert files.locate("CompVis/stable-diffusion-v1-4") == tmp_path


def test_a_model_on_the_hub_is_named_with_its_revision(monkeypatch, tmp_path):
    asked = []

    def fetch(source, revision, **patterns):
        asked.append((source, revision))
        snapshot = tmp_path / "hub/snapshots" / (revision or "4f1c2a")
        snapshot.mkdir(parents=True, exist_ok=True)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    files.name_source(tmp_path / "base", "google/ddpm-celebahq-256")
    assert read_json(tmp_path / "base/source.json") == {"source": "google/ddpm-celebahq-256@4f1c2a"}
    assert files.locate(tmp_path / "base").name == "4f1c2a"
    files.name_source(tmp_path / "older", "google/ddpm-celebahq-256@0b9d")
    assert read_json(tmp_path / "older/source.json") == {"source": "google/ddpm-celebahq-256@0b9d"}
    assert asked == [("google/ddpm-celebahq-256", revision) for revision in (None, "4f1c2a", "0b9d")]


def test_a_full_disk_is_not_taken_for_a_model_that_cannot_be_reached(monkeypatch):
    def fetch(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(UserError, match="cannot keep model 'google/x': No space left on device; HF_HOME"):
        files.locate("google/x")
