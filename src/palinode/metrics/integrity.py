"""How far a model's outputs moved from those of the model it was made from, on the same noise.

The question is that of "Model Integrity when Unlearning with T2I Diffusion Models" (Schioppa et al., 2024, arXiv
2411.02068), whose formula is not known to us. The definition here is this project's own:

    drift        D = mean over pairs of d(base_i, row_i)
    seed ceiling C = mean over i of d(base_i, base_{i+1}), what another seed would change
    integrity      = 1 - D / C

Integrity is 1 for an untouched model, 0 for one as different as another seed, and below 0 for a worse one. The raw
drift is reported beside it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode.core import estimate
from palinode.core.estimate import Metric
from palinode.metrics.features import BATCH, Backbone, require_digest, to_rgb

# d(a_i, b_i) of uint8 images [N, H, W, C] in pairs: [N].
Distance = Callable[[np.ndarray, np.ndarray], Tensor]

ALEXNET_SHA256 = "7be5be79"  # the digest in the name of torchvision's file, alexnet-owt-7be5be79.pth
ALEXNET_SIDE = 64
SSIM_WINDOW = 7


def measure_pairs(distance: Distance, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """distance(a_i, b_i) of uint8 images [N, H, W, C]: float64 [N]; exactly 0 where the images are equal."""
    values = np.zeros(len(a))
    differ = np.flatnonzero((np.asarray(a) != np.asarray(b)).reshape(len(a), -1).any(1))
    for first in range(0, len(differ), BATCH):
        part = differ[first : first + BATCH]
        values[part] = distance(a[part], b[part]).double().cpu().numpy()
    return values


def lpips_style(backbone: Backbone) -> Distance:
    """LPIPS (Zhang et al. 2018, arXiv 1801.03924) in its "baseline" mode, on another network.

    Activations have unit length over channels. Their squared difference is summed over channels, averaged over space
    and summed over layers. This is not LPIPS: there are no learnt weights.
    """

    @torch.inference_mode()
    def distance(a: np.ndarray, b: np.ndarray) -> Tensor:
        by_layer = [
            (_normalise(left) - _normalise(right)).square().sum(1).mean((1, 2))
            for left, right in zip(backbone.layers(a), backbone.layers(b), strict=True)
        ]
        total = by_layer[0]
        for layer in by_layer[1:]:
            total = total + layer
        return total

    return distance


def ssim() -> Distance:
    """1 - SSIM with a uniform 7 px window, since the usual 11 px Gaussian spans most of a 16 px image.

    The data range is [0, 1].
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    def distance(a: np.ndarray, b: np.ndarray) -> Tensor:
        left, right = (torch.from_numpy(x).permute(0, 3, 1, 2).double() / 255 for x in (a, b))
        similarity = structural_similarity_index_measure(
            left, right, gaussian_kernel=False, kernel_size=SSIM_WINDOW, data_range=1.0, reduction="none"
        )
        return 1 - torch.as_tensor(similarity)

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
        left, right = (to_rgb(x, ALEXNET_SIDE).to(device) * 2 - 1 for x in (a, b))
        return net(left, right).flatten()

    return distance


def measure_ceiling(distance: Distance, base: np.ndarray) -> np.ndarray:
    """distance(base_i, base_{(i+1) mod N}): float64 [N]."""
    return measure_pairs(distance, base, np.roll(base, -1, axis=0))


def estimate_drift(distances: np.ndarray, replicates: int) -> Metric:
    """The mean paired distance [N]."""
    return estimate.from_samples(distances, replicates)


def estimate_integrity(distances: np.ndarray, ceiling: np.ndarray, replicates: int) -> Metric:
    """1 - mean(distances) / mean(ceiling), both [N] and resampled together; exactly 1 when nothing changed."""
    if not ceiling.any():
        return estimate.absent("the base model's samples are all equal: no seed ceiling")
    return estimate.from_statistic(
        lambda counts: 1 - (counts @ distances) / (counts @ ceiling), len(distances), replicates
    )


def _normalise(activation: Tensor) -> Tensor:
    return activation / (activation.square().sum(1, keepdim=True).sqrt() + 1e-10)
