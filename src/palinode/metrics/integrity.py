"""How far a model's outputs moved from those of the model it was made from, on the same noise (integrity.md 1.3).

change D = mean over pairs of d(base_i, row_i); seed ceiling = mean of d(base_i, base_{i+1}), what another seed would
change; integrity = 1 - D / ceiling: 1 untouched, 0 as different as another seed, below 0 worse. This is the project's
working definition, not a published one; the raw change is reported beside it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode.metrics import record
from palinode.metrics.features import BATCH, Backbone, require_digest, to_rgb

Distance = Callable[[np.ndarray, np.ndarray], Tensor]

ALEXNET_SHA256 = "7be5be79"  # the digest in the name of torchvision's file, alexnet-owt-7be5be79.pth
ALEXNET_SIDE = 64
SSIM_WINDOW = 7


def paired(distance: Distance, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """distance(a_i, b_i) of uint8 images [N, H, W, C]: float64 [N]; exactly 0 where the images are equal."""
    values = np.zeros(len(a))
    differ = np.flatnonzero((np.asarray(a) != np.asarray(b)).reshape(len(a), -1).any(1))
    for first in range(0, len(differ), BATCH):
        part = differ[first : first + BATCH]
        values[part] = distance(a[part], b[part]).double().cpu().numpy()
    return values


def lpips_style(backbone: Backbone) -> Distance:
    """LPIPS in "baseline" mode (integrity.md 1.4) on another network: activations of unit length over channels, squared
    difference summed over channels, mean over space, sum over layers. Not LPIPS: no learnt weights."""

    @torch.inference_mode()
    def distance(a: np.ndarray, b: np.ndarray) -> Tensor:
        total = 0.0
        for one, two in zip(backbone.layers(a), backbone.layers(b), strict=True):
            total = total + (_unit(one) - _unit(two)).square().sum(1).mean((1, 2))
        return total

    return distance


def ssim() -> Distance:
    """1 - SSIM with a uniform 7 px window, since the usual 11 px Gaussian spans most of a 16 px image; data range [0,
    1].
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    def distance(a: np.ndarray, b: np.ndarray) -> Tensor:
        a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).double() / 255 for x in (a, b))
        similarity = structural_similarity_index_measure(
            a, b, gaussian_kernel=False, kernel_size=SSIM_WINDOW, data_range=1.0, reduction="none"
        )
        return 1 - similarity

    return distance


def lpips_alex(trunk: str | Path, device: str | torch.device = "cpu") -> Distance:
    """True LPIPS v0.1 with torchvision's AlexNet, upsampled to 64 px.

    trunk: a local copy of torchvision's checkpoint `alexnet-owt-7be5be79.pth`. UserError when the file is missing or
    its SHA-256 is another: an untrained trunk gives numbers that mean nothing.
    """
    require_digest(trunk, ALEXNET_SHA256)
    import lpips

    with torch.random.fork_rng(devices=[]):  # the constructor draws trunk weights that are overwritten
        net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    weights = torch.load(trunk, map_location="cpu", weights_only=True)
    slices = {name.split(".", 1)[1]: name for name in net.net.state_dict()}  # "0.weight" -> "slice1.0.weight"
    features = {name.removeprefix("features."): w for name, w in weights.items() if name.startswith("features.")}
    net.net.load_state_dict({slices[name]: weight for name, weight in features.items()})
    net.eval().to(device)

    @torch.inference_mode()
    def distance(a: np.ndarray, b: np.ndarray) -> Tensor:
        one, two = (to_rgb(x, ALEXNET_SIDE).to(device) * 2 - 1 for x in (a, b))
        return net(one, two).flatten()

    return distance


def seed_ceiling(distance: Distance, base: np.ndarray) -> np.ndarray:
    """distance(base_i, base_{(i+1) mod N}): float64 [N]."""
    return paired(distance, base, np.roll(base, -1, axis=0))


def change(changes: np.ndarray, replicates: int) -> record.Metric:
    """The mean paired distance [N]."""
    return record.from_samples(changes, replicates, unit="distance", direction="down")


def integrity(changes: np.ndarray, ceiling: np.ndarray, replicates: int) -> record.Metric:
    """1 - mean(changes) / mean(ceiling), both [N] and resampled together; exactly 1 when nothing changed."""
    if not ceiling.any():
        return record.absent("the base model's samples are all equal: no seed ceiling", direction="up")
    return record.from_statistic(
        lambda counts: 1 - (counts @ changes) / (counts @ ceiling),
        len(changes),
        replicates,
        unit="",
        direction="up",
    )


def _unit(activation: Tensor) -> Tensor:
    return activation / (activation.square().sum(1, keepdim=True).sqrt() + 1e-10)
