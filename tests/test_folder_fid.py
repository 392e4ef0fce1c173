"""The tool that compares two folders of images."""

import folder_fid
import numpy as np
import pytest
from PIL import Image
from project import ROOT

from palinode.classifiers import storage
from palinode.core.errors import UserError
from palinode.metrics import quality
from palinode.metrics.features import JudgeBackbone

JUDGE = ROOT / "models/tshirt/judge"
SHAPE = (16, 16, 1)


@pytest.fixture(scope="module")
def network():
    return JudgeBackbone(storage.load(JUDGE))


@pytest.fixture
def digits(tmp_path):
    """Two folders of 100 digits each, and their arrays."""
    images = np.load(ROOT / "data/mnist/reference.npy")[:200].reshape(2, 100, *SHAPE)
    for name, part in zip("ab", images, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(part):
            Image.fromarray(image[..., 0]).save(tmp_path / name / f"{i:03}.png")
    return tmp_path, images


def test_folders_are_as_far_apart_as_their_arrays(digits, network):
    place, (first, second) = digits
    expected = quality.fid_value(network.features(first), network.features(second))
    assert expected > 0.5
    assert folder_fid.measure_distance(place / "a", place / "b", network, SHAPE) == pytest.approx(expected, rel=1e-4)
    assert folder_fid.measure_distance(place / "a", place / "a", network, SHAPE) == pytest.approx(0, abs=1e-3)


def test_too_few_images_and_those_of_another_size_are_refused(digits, network, tmp_path):
    place, _ = digits
    for file in sorted((place / "b").iterdir())[60:]:
        file.unlink()
    with pytest.raises(UserError, match="b holds 60 images, .* need 65"):
        folder_fid.measure_distance(place / "a", place / "b", network, SHAPE)
    (place / "b/deeper").mkdir()
    Image.new("L", (8, 8)).save(place / "b/deeper/small.png")
    with pytest.raises(UserError, match="small.png is 8x8"):
        folder_fid.measure_distance(place / "a", place / "b", network, SHAPE)
