"""The tool that checks the judge of scenes with another one."""

import numpy as np
import second_judge
import torch

from palinode.core import contact_sheet


def test_tiles_are_the_pictures_of_a_sheet(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    contact_sheet.write_png(tmp_path / "sheet.png", contact_sheet.sheet(images, columns=3))
    assert np.array_equal(second_judge.cut_tiles(tmp_path / "sheet.png"), images)


def test_a_probe_learns_what_is_linear_and_scales_its_features():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    x = np.eye(3)[labels] * [1, 100, 0.01] + generator.normal(size=(600, 3)) * [0.05, 5, 0.0005]
    probe = second_judge.Probe(x[:400], labels[:400])
    assert (probe(x[400:]) == labels[400:]).mean() > 0.98


class Plain:
    """Two layers with known moments, and features that name the picture."""

    def layers(self, images):
        x = torch.as_tensor(images).permute(0, 3, 1, 2).float()
        return [x, 2 * x[:, :1]]

    def features(self, images):
        return images[:, :1, 0, 0].astype(np.float32)


def test_a_description_has_every_channels_mean_and_deviation_whatever_the_batch(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(second_judge, "BATCH", 2)
    description = second_judge.describe(Plain(), images)
    means = images.mean((1, 2))
    deviations = images.std((1, 2), ddof=1)
    expected = np.hstack([means, deviations, 2 * means[:, :1], 2 * deviations[:, :1], images[:, :1, 0, 0]])
    assert np.allclose(description, expected, rtol=1e-5)


def test_judges_are_compared_on_what_was_asked_for():
    """Things in rows of five styles; the first judge always sees thing 0 in style 0, the second is right."""
    drawn = np.zeros((10, 32, 32, 3), np.uint8)

    def judge(x):
        return torch.eye(3)[torch.zeros(len(x), dtype=torch.int64)], torch.eye(6)[
            torch.zeros(len(x), dtype=torch.int64)
        ]

    wanted = np.divmod(np.arange(10), 5)
    probes = [lambda description, truth=truth: truth for truth in wanted]
    concept, style = second_judge.compare(drawn, judge, probes, np.zeros((10, 1)))
    assert concept["first_right"].tolist() == [True] * 5 + [False] * 5
    assert concept["second_right"].all()
    assert style["first_right"].sum() == 2
    assert (style["agree"] == style["first_right"]).all()
