"""The copy descriptor: any file of its kind serves, and one that is none is named. Its weights are not at hand here."""

import sys

import numpy as np
import pytest
import torch

from palinode.core.errors import UserError
from palinode.memorization import ground_truth
from palinode.metrics import sscd


class Colours(torch.nn.Module):
    """Mean colours of the four quarters, from the normalised picture: a descriptor that tells plain pictures apart."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("sscd") / "colours.torchscript.pt"
    torch.jit.save(torch.jit.script(Colours()), path)
    return str(path)


def plain(*colours) -> np.ndarray:
    return np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in colours])


def test_similar_pictures_are_copies(weights):
    network, pictures = sscd.SSCD(weights), plain((255, 0, 0), (200, 30, 30), (0, 0, 255))
    described = network(pictures)
    assert described.shape == (3, 12) and torch.allclose(described.norm(dim=1), torch.ones(3))
    assert network.copies(pictures, pictures[0]).tolist() == [True, True, False]
    mean, std = np.array(sscd.MEAN), np.array(sscd.STD)
    by_hand = np.tile((np.array([1, 0, 0]) - mean) / std, (4, 1)).T.ravel()
    assert described[0].numpy() == pytest.approx(by_hand / np.linalg.norm(by_hand), abs=1e-4)


def test_a_list_judges_copies_by_it(weights):
    known, pictures = (
        ground_truth.PromptListGroundTruth(weights),
        plain((255, 0, 0), (200, 30, 30), (0, 0, 255), (0, 255, 0)),
    )
    assert known.copy_metric == "sscd_copies" and ground_truth.PromptListGroundTruth().copy_metric == "copies"
    assert known.copies(pictures, -1, pictures[0]).tolist() == [True, True, False, False]
    assert known.match(pictures, pictures[0]) == -1
    assert known.match(pictures[1:], pictures[3]) == "its pictures do not repeat: 33% SSCD calls copies of their medoid"


def test_an_onnx_file_takes_whole_grey_levels(weights, monkeypatch):
    class Session:
        def __init__(self, path, providers):
            assert path.endswith(".onnx") and providers == ["CPUExecutionProvider"]

        def run(self, names, inputs):
            assert inputs["image"].dtype == np.uint8 and inputs["image"].shape[1:] == (288, 288, 3)
            return [inputs["image"].mean((1, 2)).astype(np.float32) + 1]

    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    sys.modules["onnxruntime"].InferenceSession = Session
    path = weights.replace("colours.torchscript.pt", "colours.onnx")
    open(path, "w").close()
    assert sscd.SSCD(path)(plain((255, 0, 0)))[0].tolist() == pytest.approx([1, 1 / 256, 1 / 256], abs=1e-4)


@pytest.mark.parametrize("name,content,message", [
    ("absent.pt", None, "absent.pt is missing; SSCD's repository has"),
    ("broken.pt", b"no network", "broken.pt cannot be used"),
    ("empty.onnx", b"", "needs the package onnxruntime, which is not installed"),
])  # fmt: skip
def test_what_is_no_descriptor_is_named(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        sscd.SSCD(str(tmp_path / name))


def test_a_network_of_another_kind_is_named(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Flatten(2)), tmp_path / "flat.pt")
    with pytest.raises(UserError, match=r"maps a picture to \(1, 3, 82944\), not to one descriptor"):
        sscd.SSCD(str(tmp_path / "flat.pt"))
