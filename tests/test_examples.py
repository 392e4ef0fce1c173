"""The examples run, load what they say they load, and do what they say they do."""

import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import score_samples
import torch
import unlearn_your_ddpm
from PIL import Image
from project import ROOT

from palinode.core.errors import UserError
from palinode.metrics.forgetting import measure_distances
from palinode.models import unconditional

JUDGE = ROOT / "models/tshirt/judge"
TSHIRT = ROOT / "data/fashion/tshirt.npy"
SIDE = 16  # pixels of a shipped picture


def read_rows(out: Path, side: int) -> np.ndarray:
    """The pictures of before-and-after.png: uint8 [4, 8, side, side, 1]."""
    with Image.open(out / "before-and-after.png") as image:
        pixels = np.asarray(image)[::4, ::4]
    tiles = pixels.reshape(4, side + 1, 8, side + 1)[:, :side, :, :side]
    return tiles.transpose(0, 2, 1, 3)[..., None]


def write_folder(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{number:03}.png")
    return folder


def unlearn(*arguments: object) -> None:
    unlearn_your_ddpm.main(unlearn_your_ddpm.parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.slow
def test_unlearning_writes_a_pipeline_and_a_sheet(model, tmp_path, capsys):
    from diffusers import DDPMPipeline

    pictures = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 1), np.uint8)
    unconditional.save(model, tmp_path / "ddpm")
    forget = write_folder(tmp_path / "forget", pictures[:2])
    np.save(tmp_path / "keep.npy", pictures[2:])
    out = tmp_path / "out"

    # Batches of two often lack pictures of one of the sets, whose loss then has no gradient.
    unlearn(tmp_path / "ddpm", forget, tmp_path / "keep.npy", "--out", out, "--steps", 4, "--batch", 2)

    pipeline = DDPMPipeline.from_pretrained(out / "model", local_files_only=True)
    changed = dict(pipeline.unet.named_parameters())
    for name, parameter in model.net.named_parameters():
        assert torch.isfinite(changed[name]).all()
        assert not torch.equal(changed[name], parameter), f"{name} has not been trained"
    assert (read_rows(out, 8)[0] != read_rows(out, 8)[1]).any()
    assert "'retain'" in capsys.readouterr().out


@pytest.mark.slow
def test_the_shipped_model_forgets_the_tshirt_and_keeps_the_digits(tmp_path):
    keep = ROOT / "data/mnist/train.npy"
    unlearn(ROOT / "models/tshirt/model", TSHIRT, keep, "--out", tmp_path, "--steps", 20, "--lr", 1e-3, "--batch", 32)
    forget = np.load(TSHIRT)
    restored_before, restored_after, drawn_before, drawn_after = read_rows(tmp_path, SIDE)
    before = measure_distances(restored_before, forget)
    after = measure_distances(restored_after, forget)
    assert (before < 1.5).all()
    assert (after > 2 * before).all()
    assert (
        np.abs(drawn_after.astype(float) - drawn_before).mean() < np.abs(restored_after - forget.astype(float)).mean()
    )


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return np.load(ROOT / "data/mnist/reference.npy")[:160]


def test_equal_pictures_have_no_drift_and_no_distance(reference):
    scores = score_samples.score(reference, reference, judge=JUDGE)
    assert scores["drift, 1 - SSIM"].value == 0
    assert scores["FID, judge"].value == pytest.approx(0, abs=1e-3)
    assert all(metric.value is None or math.isfinite(metric.value) for metric in scores.values())


def test_a_folder_and_its_array_score_alike(reference, tmp_path):
    folder = write_folder(tmp_path / "samples", reference[:80])
    samples = score_samples.read(folder)
    assert np.array_equal(samples, reference[:80])
    scores = score_samples.score(samples, reference[80:], judge=JUDGE)
    assert scores["drift, 1 - SSIM"].value > 0.1
    assert scores["FID, judge"].value > 0.1


def test_copies_among_the_samples_are_counted(reference, tmp_path, capsys, monkeypatch):
    forget = np.load(TSHIRT)
    np.save(tmp_path / "samples.npy", np.concatenate([reference[:75], *[forget] * 25]))
    np.save(tmp_path / "others.npy", reference)
    files = [str(tmp_path / "samples.npy"), str(tmp_path / "others.npy")]
    monkeypatch.setattr(sys, "argv", ["score_samples.py", *files, "--forget", str(TSHIRT)])
    runpy.run_path(str(ROOT / "examples/score_samples.py"), run_name="__main__")
    printed = {line[:26].strip(): line[26:] for line in capsys.readouterr().out.splitlines()}
    assert printed["forget rate"].split()[0] == "0.2500"
    assert "100 and 160 pictures are no pairs" in printed["drift, 1 - SSIM"]
    assert "--judge" in printed["KID, judge"]


def test_a_hit_distance_of_ones_own(reference):
    forget = np.load(TSHIRT)
    near = measure_distances(reference, forget)
    scores = score_samples.score(reference, reference, forget, hit_distance=float(np.median(near)))
    assert scores["forget rate"].value == pytest.approx(0.5, abs=0.02)


def test_a_missing_file_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["score_samples.py", str(tmp_path / "none"), str(TSHIRT)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "examples/score_samples.py"), run_name="__main__")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_pictures_of_two_sizes_are_refused(reference, tmp_path):
    folder = write_folder(tmp_path / "pictures", reference[:2])
    Image.new("L", (8, 8)).save(folder / "small.png")
    with pytest.raises(UserError, match=r"small.png is 8x8"):
        score_samples.read(folder)
