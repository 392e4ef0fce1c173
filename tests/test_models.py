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
from conftest import SCHEDULER, UNET
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from palinode.core import images
from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.models import files, loading, unconditional
from palinode.models.schedule import Schedule

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


def pickle_weights(unet: Path, rename=lambda name: name) -> Path:
    """Let the network's weights lie there in the older form, a pickle; its path."""
    tensors = load_file(unet / files.WEIGHTS)
    (unet / files.WEIGHTS).unlink()
    torch.save({rename(name): tensor for name, tensor in tensors.items()}, unet / files.PICKLED)
    return unet / files.PICKLED


@pytest.fixture
def scratch_root(monkeypatch, tmp_path):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.mark.parametrize("flat", [True, False], ids=["all-at-the-top", "folders"])
def test_pickled_weights_are_converted_once(model, folder, scratch_root, monkeypatch, flat):
    """As google/ddpm-celebahq-256 and the CIFAR-10 base of Diff-Pruning are laid out."""
    pickle_weights(folder / "unet")
    if flat:
        for file in [*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()]:
            file.rename(folder / file.name)
        (folder / "unet").rmdir()
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([3, 700])
    torch.testing.assert_close(unconditional.load(folder).predict(x, t), model.predict(x, t), rtol=0, atol=0)
    assert len(list(scratch_root.glob("converted-*/*.safetensors"))) == 1
    monkeypatch.setattr(torch, "load", None)
    torch.testing.assert_close(unconditional.load(folder).predict(x, t), model.predict(x, t), rtol=0, atol=0)


def test_the_old_names_of_attention_are_read(scratch_root, tmp_path):
    """google/ddpm-celebahq-256 was saved when diffusers called them query, key, value and proj_attn."""
    settings = UNET | {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "attention_head_dim": None}
    model = unconditional.create(settings, SCHEDULER, 0)
    unconditional.save(model, tmp_path / "old")
    renamed = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(name: str) -> str:
        for new, old in renamed.items():
            name = name.replace(new, old)
        return name

    assert any(".query." in name for name in torch.load(pickle_weights(tmp_path / "old/unet", rename)))
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([3, 700])
    torch.testing.assert_close(unconditional.load(tmp_path / "old").predict(x, t), model.predict(x, t), rtol=0, atol=0)


def test_a_pickle_with_code_is_refused(folder, scratch_root):
    (folder / "unet" / files.WEIGHTS).unlink()
    torch.save({"weights": Path("x")}, folder / "unet" / files.PICKLED)
    with pytest.raises(UserError, match=r"model\.bin holds more than tensors, which could run code"):
        unconditional.load(folder)
    torch.save([torch.zeros(1)], folder / "unet" / files.PICKLED)
    with pytest.raises(UserError, match=r"model\.bin is no state dict of a network"):
        unconditional.load(folder)
    for content in (b"", b"PK\x03\x04 cut"):
        (folder / "unet" / files.PICKLED).write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*model\.bin: "):
            unconditional.load(folder)
    assert not list(scratch_root.glob("converted-*/*.safetensors"))
    (folder / "unet" / files.PICKLED).rename(folder / "unet" / "optimizer.bin")
    with pytest.raises(UserError, match=r"optimizer\.bin is no diffusers network"):
        unconditional.load(folder)


def test_a_network_alone_needs_the_scheduler_of_its_base(model, folder, scratch_root, tmp_path):
    """As the SISS authors publish their T-shirt base: checkpoint-117500/unet_ema, with what EMAModel adds."""
    published = tmp_path / "checkpoint-117500/unet_ema"
    shutil.copytree(folder / "unet", published)
    pickle_weights(published)
    config = read_json(published / "config.json") | {"decay": 0.9999, "optimization_step": 117500}
    (published / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no scheduler_config\.json in .*unet_ema: name the base's `scheduler`"):
        unconditional.load(published)
    files.name_source(tmp_path / "base", str(published), SCHEDULER)
    loaded = loading.load(tmp_path / "base")
    assert loaded.config == SCHEDULER
    x = torch.randn(2, 1, 8, 8)
    t = torch.tensor([3, 700])
    torch.testing.assert_close(loaded.predict(x, t), model.predict(x, t), rtol=0, atol=0)


def test_weights_of_another_network_are_named(folder):
    weights = folder / "unet" / files.WEIGHTS
    whole = load_file(weights)
    save_file({name: tensor for name, tensor in whole.items() if name != "conv_in.bias"}, weights)
    with pytest.raises(UserError, match="lack conv_in.bias, which its config.json asks for"):
        unconditional.load(folder)
    save_file(whole | {"conv_new.bias": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match="have conv_new.bias, which its config.json has not"):
        unconditional.load(folder)


def test_latents_are_clipped_only_where_a_scheduler_says_so():
    silent = {name: value for name, value in SCHEDULER.items() if name != "clip_sample"}
    assert Schedule.from_config(silent).clip
    assert not Schedule.from_config(silent, clip=False).clip
    assert Schedule.from_config(SCHEDULER, clip=False).clip


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
    pickles = [f"unet/{weights}.bin", f"{weights}.bin"]
    unwanted = [
        "README.md",
        "optimizer.bin",
        *pickles,
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        f"unet/{weights}.non_ema.safetensors",
    ]

    fetched = []

    def fetch(source, revision, **patterns):
        fetched.append(set(filter_repo_objects(wanted + unwanted, **patterns)))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert files.locate("google/ddpm-celebahq-256") == tmp_path
    assert fetched == [set(wanted), {*wanted, *pickles}]  # pickles only where nothing else came
    (tmp_path / "model.safetensors").touch()
    fetched.clear()
    assert files.locate("CompVis/stable-diffusion-v1-4") == tmp_path
    assert fetched == [set(wanted)]


def test_a_model_on_the_hub_is_named_with_its_revision(monkeypatch, tmp_path):
    asked = []

    def fetch(source, revision, **patterns):
        asked.append((source, revision))
        snapshot = tmp_path / "hub/snapshots" / (revision or "4f1c2a")
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / files.WEIGHTS).touch()
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    files.name_source(tmp_path / "base", "google/ddpm-celebahq-256")
    assert read_json(tmp_path / "base/source.json") == {"source": "google/ddpm-celebahq-256@4f1c2a"}
    assert files.locate(tmp_path / "base").name == "4f1c2a"
    files.name_source(tmp_path / "older", "google/ddpm-celebahq-256@0b9d")
    assert read_json(tmp_path / "older/source.json") == {"source": "google/ddpm-celebahq-256@0b9d"}
    assert [revision for _, revision in asked] == [None, "4f1c2a", "0b9d"]


def test_a_full_disk_is_not_taken_for_a_model_that_cannot_be_reached(monkeypatch):
    def fetch(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(UserError, match="cannot keep model 'google/x': No space left on device; HF_HOME"):
        files.locate("google/x")
