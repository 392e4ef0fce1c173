"""How well a model still explains given images: probability-flow likelihood, and the error of its noise prediction.

The likelihood is that of the VP-SDE from t = 1e-5 to 1, beta from 0.1 to 20 (Song et al., ICLR 2021, arXiv 2011.13456,
eq. 39). "Data Unlearning in Diffusion Models" (SISS; Alberti et al., ICLR 2025, arXiv 2503.01034) reports it as NLL in
Tables 1 and 2. The probability-flow ODE dx/dt = -beta/2 (x - eps / sigma) is stiff in t. In u = log rho, rho = sigma /
gamma, it is not:

    dx / du    = sigma (eps(x, t) - sigma x)        from d(x / gamma) / du = rho eps and dgamma / du = -gamma sigma^2
    log p(x_0) = log N(x_1; 0, I) + integral of (sigma tr(d eps / dx) - sigma^2 d) du

For data N(0, I) both right-hand sides are 0, and near t = 1 every data set looks like that. So a fixed grid in log rho
suffices: it is deterministic, and costs the same for a wrecked model as for a sound one.

Deviations from the official code (`claserken/SISS`, commit af2a29c):

- it integrates in x with an adaptive RK45; here it is a fixed grid in u;
- it truncates the network's label t * 999 to an integer; here the label is a float;
- it takes sigma from the discrete schedule's table; here sigma is the SDE's own.

So the integrand is smooth and the ODE is the one written down. Values are comparable between rows here, not with the
paper's digits.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.images import to_model
from palinode.core.scratch import Checkpoint
from palinode.models.denoiser import NoisePredictor

BETA_MIN = 0.1
BETA_MAX = 20.0
T_FIRST = 1e-5
T_LAST = 1.0
LABELS = 999


def log_rho(t: float) -> float:
    """log(sigma / gamma) of the VP-SDE at time t."""
    return 0.5 * math.log(math.expm1(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t * t / 2))


def time_of(log_rho_value: float) -> float:
    """The inverse of `log_rho`: the positive root of (BETA_MAX - BETA_MIN) t^2 / 2 + BETA_MIN t = log(1 + rho^2)."""
    slope = BETA_MAX - BETA_MIN
    total = math.log1p(math.exp(2 * log_rho_value))
    return 2 * total / (BETA_MIN + math.sqrt(BETA_MIN**2 + 2 * slope * total))


def check_schedule(model: NoisePredictor) -> None:
    """Raise UserError when the network was trained on another schedule than the VP-SDE's.

    10 % in log alpha_bar are allowed, which is the discrete schedule's distance at the first step.
    """
    table = model.schedule.alpha_bar
    t = torch.arange(1, len(table) + 1, dtype=torch.float64) / len(table)
    expected = -(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2)
    if len(table) != LABELS + 1 or ((table.log() / expected) - 1).abs().max() > 0.1:
        raise UserError(
            "the likelihood needs the linear schedule 1e-4 to 0.02 with 1000 steps (VP-SDE, beta 0.1 to 20)"
        )


def nll(
    model: NoisePredictor,
    images: np.ndarray,
    probes: int,
    steps: int,
    *key: str | int,
    batch: int = 64,
    checkpoint: Checkpoint | None = None,
) -> np.ndarray:
    """Bits per dimension of uint8 images [N, H, W, C]: float64 [N, probes], one value per Hutchinson probe.

    steps: Runge-Kutta 4 steps, each with four forward and backward passes of every (image, probe) pair. key: names the
    Rademacher probes, which are shared by all models. checkpoint: takes the state after every step, and gives the one
    to continue from.

    bits/dim = -log p / (d log 2) + 7; 7 is the offset of images scaled from 256 levels to [-1, 1]. There is no
    dequantisation noise, as in the SISS paper. A damaged model may give inf or NaN.
    """
    from tqdm import tqdm

    check_schedule(model)
    checkpoint = checkpoint or Checkpoint()
    x = to_model(np.array(images)).repeat_interleave(probes, 0).double()
    v = torch.stack([_draw_probe(x[0].shape, *key, *divmod(pair, probes)) for pair in range(len(x))])
    first = log_rho(T_FIRST)
    h = (log_rho(T_LAST) - first) / steps
    dimensions = x[0].numel()
    state = checkpoint.load() or {"steps": 0, "x": x, "integral": torch.zeros(len(x), dtype=torch.float64)}
    x = state["x"]
    integral = state["integral"]
    for i in tqdm(range(state["steps"], steps), f"nll {key[0]}", mininterval=5):
        for part in torch.arange(len(x)).split(batch):
            change, increment = _step(model, x[part].to(model.device), v[part].to(model.device), first + i * h, h)
            x[part] += change.cpu()
            integral[part] += increment.cpu()
        checkpoint.save({"steps": i + 1, "x": x, "integral": integral})
    log_p = -0.5 * (x**2).sum(tuple(range(1, x.dim()))) - 0.5 * dimensions * math.log(2 * math.pi) + integral
    return (-log_p / (dimensions * math.log(2)) + 7).view(len(images), probes).numpy()


def _step(model: NoisePredictor, x: Tensor, v: Tensor, u: float, h: float) -> tuple[Tensor, Tensor]:
    """One step of length h in u = log rho: the changes of x [B, C, H, W] and of the integral [B], float64.

    v^T (d eps / dx) v stands in for the trace.
    """
    axes = tuple(range(1, x.dim()))
    dimensions = x[0].numel()

    def field(u: float, x: Tensor) -> tuple[Tensor, Tensor]:
        sigma = 1 / math.sqrt(1 + math.exp(-2 * u))
        label = torch.full((len(x),), max(time_of(u) * LABELS, 0.0), dtype=torch.float32, device=x.device)
        with torch.enable_grad():
            x_t = x.float().requires_grad_()
            eps = model.predict(x_t, label)
            (product,) = torch.autograd.grad((eps * v).sum(), x_t)
        divergence = sigma * (product * v).double().sum(axes) - sigma**2 * dimensions
        return sigma * (eps.detach().double() - sigma * x), divergence

    k1, d1 = field(u, x)
    k2, d2 = field(u + h / 2, x + h / 2 * k1)
    k3, d3 = field(u + h / 2, x + h / 2 * k2)
    k4, d4 = field(u + h, x + h * k3)
    return h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)


@torch.inference_mode()
def eps_error(
    model: NoisePredictor,
    images: np.ndarray,
    levels: int,
    draws: int,
    *key: str | int,
    batch: int = 64,
) -> np.ndarray:
    """Mean over `levels` time steps and over pixels of (eps - eps_theta(x_t, t))^2: float64 [N, draws].

    The steps are the midpoints of `levels` equal parts of 0..T-1. The noise of (image, draw, step) is named by `key`,
    the same for every model. images: uint8 [N, H, W, C].
    """
    from tqdm import tqdm

    x = to_model(np.array(images))
    schedule = model.schedule
    grid = [int((level + 0.5) * len(schedule) / levels) for level in range(levels)]
    total = np.zeros((len(images), draws))
    noises = _draw_noises(x, grid, draws, key)
    for _ in tqdm(range(0, total.size * levels, batch), f"eps-error {key[0]}", mininterval=5):
        index, times, drawn = zip(*itertools.islice(noises, batch), strict=True)
        t = torch.tensor(times)
        eps = torch.stack(drawn)
        x_t = schedule.add_noise(x[[image for image, _ in index]], eps, t)
        error = (model.predict(x_t.to(model.device), t.to(model.device)).cpu() - eps).double() ** 2
        for where, value in zip(index, error.flatten(1).mean(1).tolist(), strict=True):
            total[where] += value / levels
    return total


def _draw_noises(
    x: Tensor, grid: list[int], draws: int, key: tuple[str | int, ...]
) -> Iterator[tuple[tuple[int, int], int, Tensor]]:
    """((image, draw), time step, noise) of everything that `eps_error` predicts."""
    for image in range(len(x)):
        for draw in range(draws):
            generator = seeds.generator("eval", "eps-error", *key, image, draw)
            for t in grid:
                yield (image, draw), t, torch.randn(x.shape[1:], generator=generator)


def _draw_probe(shape: torch.Size, *key: str | int) -> Tensor:
    generator = seeds.generator("eval", "nll", *key)
    return torch.randint(2, shape, generator=generator).float() * 2 - 1
