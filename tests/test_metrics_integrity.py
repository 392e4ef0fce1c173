"""Paired distances, and integrity at its fixed points."""

import hashlib

import numpy as np
import pytest
import torch

from palinode.core.errors import UserError
from palinode.core.images import to_model
from palinode.metrics import features, integrity


class Filters:
    """Two layers of fixed random filters."""

    name, limit = "filters", None

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weights = [torch.randn(4, 1, 3, 3, generator=generator), torch.randn(6, 4, 3, 3, generator=generator)]

    def layers(self, images):
        x, layers = to_model(images), []
        for weight in self.weights:
            x = torch.nn.functional.conv2d(x, weight).relu()
            layers.append(x)
        return layers


@pytest.fixture
def base():
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (20, 16, 16, 1), dtype=np.uint8)


def test_identity_is_exact(base):
    for distance in (integrity.lpips_style(Filters()), integrity.ssim()):
        changes = integrity.measure_pairs(distance, base.copy(), base)
        ceiling = integrity.measure_ceiling(distance, base)
        metric = integrity.estimate_integrity(changes, ceiling, 50)
        assert (metric.value, metric.lo, metric.hi) == (1, 1, 1)
        assert integrity.estimate_drift(changes, 50).value == 0


def test_reseeding_gives_zero_and_opposites_less(base):
    distance = integrity.ssim()
    ceiling = integrity.measure_ceiling(distance, base)
    reseeded = integrity.measure_pairs(distance, np.roll(base, -1, axis=0), base)
    assert integrity.estimate_integrity(reseeded, ceiling, 50).value == pytest.approx(0, abs=1e-12)
    assert integrity.estimate_integrity(integrity.measure_pairs(distance, 255 - base, base), ceiling, 50).value < 0


def test_integrity_falls_with_the_dose(base):
    distance = integrity.lpips_style(Filters())
    ceiling, noise = integrity.measure_ceiling(distance, base), np.roll(base, 5, axis=0).astype(float)
    doses = [(base * (1 - s) + noise * s).astype(np.uint8) for s in (0.1, 0.3, 0.6, 1.0)]
    values = [
        integrity.estimate_integrity(integrity.measure_pairs(distance, row, base), ceiling, 5).value for row in doses
    ]
    assert values == sorted(values, reverse=True) and values[0] > 0.5


def test_replicates_resample_numerator_and_denominator_together(base):
    changes = np.arange(1.0, 21)
    metric = integrity.estimate_integrity(changes, 2 * changes, 50)
    assert metric.replicates == pytest.approx(np.full(50, 0.5))


def test_equal_samples_have_no_ceiling():
    assert "no seed ceiling" in integrity.estimate_integrity(np.ones(4), np.zeros(4), 5).reason


def test_baseline_distance_is_lpips_own(base):
    import lpips

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = lpips.LPIPS(net="alex", pnet_rand=True, lpips=False, verbose=False).eval()

    class Trunk:
        def layers(self, images):
            return list(net.net(net.scaling_layer(features.to_rgb(images, 64) * 2 - 1)))

    one, two = base[:4], base[4:8]
    expected = net(*(features.to_rgb(x, 64) * 2 - 1 for x in (one, two))).flatten()
    assert integrity.lpips_style(Trunk())(one, two) == pytest.approx(expected.tolist(), rel=1e-4)


def test_ssim_by_brute_force(base):
    one, two = base[:1], (base[:1] // 2 + base[1:2] // 2).astype(np.uint8)
    a, b = one[0, :, :, 0] / 255, two[0, :, :, 0] / 255
    a, b = np.pad(a, 3, mode="reflect"), np.pad(b, 3, mode="reflect")
    values = []
    for i in range(16):
        for j in range(16):
            p, q = a[i : i + 7, j : j + 7], b[i : i + 7, j : j + 7]
            luminance = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            values.append(luminance * (2 * covariance + 9e-4) / (p.var() + q.var() + 9e-4))
    assert integrity.ssim()(one, two).item() == pytest.approx(1 - np.mean(values), abs=2e-3)


def test_alexnet_of_another_digest_is_refused(tmp_path):
    with pytest.raises(UserError, match="missing weights"):
        integrity.lpips_alex(tmp_path / "none.pth")
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"not it")
    with pytest.raises(UserError, match="7be5be79"):
        integrity.lpips_alex(tmp_path / "alexnet-owt-7be5be79.pth")


def test_alexnet_checkpoint_lands_in_the_trunk(tmp_path, monkeypatch, base):
    import lpips
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        alexnet = models.alexnet(weights=None)
    torch.save(alexnet.state_dict(), tmp_path / "trunk.pth")
    digest = hashlib.sha256((tmp_path / "trunk.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(integrity, "ALEXNET_SHA256", digest[:8])
    before = torch.get_rng_state()
    distance = integrity.lpips_alex(tmp_path / "trunk.pth")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for mine, theirs in zip(net.net.parameters(), alexnet.features.parameters(), strict=True):
        mine.data.copy_(theirs)
    expected = net(*(features.to_rgb(x, 64) * 2 - 1 for x in (base[:4], base[4:8]))).flatten()
    assert distance(base[:4], base[4:8]).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
