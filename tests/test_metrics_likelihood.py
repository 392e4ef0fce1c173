"""The likelihood against densities that are known, and against an adaptive solver of the ODE as usually written."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from palinode.core.errors import UserError
from palinode.core.images import to_model
from palinode.metrics import likelihood
from palinode.models.schedule import Schedule

LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SHAPE = (1, 4, 4)


class Gaussian:
    """The exact noise predictor of data N(mean, diag(std^2)) under the VP-SDE; it counts its passes."""

    device = torch.device("cpu")

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, schedule: dict = LINEAR):
        self.mean, self.std = mean.double(), std.double()
        self.schedule = Schedule.from_config(schedule)
        self.nfe = 0

    def predict(self, x, label):
        self.nfe += len(x)
        t = label.double().view(-1, 1, 1, 1) / 999
        variance = -torch.expm1(-(0.1 * t + 9.95 * t**2))
        gamma, sigma = (1 - variance).sqrt(), variance.sqrt()
        eps = sigma * (x.double() - gamma * self.mean) / (gamma**2 * self.std**2 + variance)
        return eps.float()

    def bits(self, images) -> np.ndarray:
        """What the ODE gives when solved exactly: the flow between the Gaussians at t = 1e-5 and 1 is linear."""
        (gamma_0, std_0), (gamma_1, std_1) = (self.marginal(t) for t in (1e-5, 1.0))
        x_1 = gamma_1 * self.mean + std_1 / std_0 * (to_model(images).double() - gamma_0 * self.mean)
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(x_1) + (std_1 / std_0).log()
        return (-log_p.flatten(1).mean(1) / math.log(2) + 7).numpy()

    def density_bits(self, images) -> np.ndarray:
        log_p = torch.distributions.Normal(self.mean, self.std).log_prob(to_model(images).double())
        return (-log_p.flatten(1).mean(1) / math.log(2) + 7).numpy()

    def marginal(self, t: float):
        variance = -math.expm1(-(0.1 * t + 9.95 * t**2))
        return (1 - variance) ** 0.5, ((1 - variance) * self.std**2 + variance).sqrt()


@pytest.fixture
def images():
    return np.random.Generator(np.random.PCG64(3)).integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def diagonal():
    return Gaussian(torch.linspace(-0.5, 0.5, 16).view(SHAPE), torch.linspace(0.4, 1.5, 16).view(SHAPE))


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_isotropic_gaussian(images, std):
    model = Gaussian(torch.full(SHAPE, 0.3), torch.full(SHAPE, std))
    measured = likelihood.nll(model, images, 2, 32, "test")
    assert measured == pytest.approx(np.repeat(model.bits(images)[:, None], 2, 1), abs=1e-3)


def test_density_differs_by_the_prior_alone(images, diagonal):
    # At t = 1 a trace of the data is left (gamma = 0.007), which the prior N(0, I) ignores.
    assert diagonal.bits(images) == pytest.approx(diagonal.density_bits(images), abs=0.02)


def test_diagonal_gaussian(images, diagonal):
    # The Jacobian is diagonal, so every Rademacher probe gives its trace exactly.
    assert likelihood.nll(diagonal, images, 1, 32, "test")[:, 0] == pytest.approx(diagonal.bits(images), abs=1e-3)


def test_halving_the_step_converges_at_fourth_order(images, diagonal):
    exact = likelihood.nll(diagonal, images, 1, 128, "test")
    errors = [np.abs(likelihood.nll(diagonal, images, 1, steps, "test") - exact).max() for steps in (8, 16, 32)]
    assert errors[0] > 4 * errors[1] > 40 * errors[2]


def test_adaptive_solver_of_the_plain_ode_agrees(images, diagonal):
    x = to_model(images[:1]).double()
    size = x.numel()

    def field(t, state):
        beta, label = 0.1 + 19.9 * t, torch.tensor([t * 999], dtype=torch.float64)
        sigma = math.sqrt(-math.expm1(-(0.1 * t + 9.95 * t**2)))
        here = torch.from_numpy(state[:size]).view(1, *SHAPE)

        def drift(y):
            return -0.5 * beta * (y - diagonal.predict(y, label).double() / sigma)

        jacobian = torch.autograd.functional.jacobian(drift, here).view(size, size)
        return np.append(drift(here).flatten().numpy(), torch.trace(jacobian).item())

    end = solve_ivp(field, (1e-5, 1.0), np.append(x.flatten().numpy(), 0), rtol=1e-5, atol=1e-5, method="RK45").y[:, -1]
    log_p = -0.5 * (end[:size] ** 2).sum() - 0.5 * size * math.log(2 * math.pi) + end[size]
    expected = -log_p / (size * math.log(2)) + 7
    assert likelihood.nll(diagonal, images[:1], 1, 32, "test")[0, 0] == pytest.approx(expected, abs=1e-3)


def test_time_and_noise_level_are_inverse():
    for t in (1e-5, 1e-3, 0.3, 1.0):
        assert likelihood.time_of(likelihood.log_rho(t)) == pytest.approx(t, rel=1e-9)


def test_cost_is_four_passes_a_step_and_chunks_do_not_matter(images, diagonal):
    whole = likelihood.nll(diagonal, images, 4, 8, "test")
    assert diagonal.nfe == 4 * 8 * 12
    assert likelihood.nll(diagonal, images, 4, 8, "test", batch=5) == pytest.approx(whole, abs=1e-6)


def test_wrecked_model_gives_a_value_not_an_exception(images, diagonal):
    diagonal.predict = lambda x, t: x * 1e30
    assert not np.isfinite(likelihood.nll(diagonal, images, 1, 8, "test")).any()


def test_another_schedule_is_refused(images):
    scaled = LINEAR | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    model = Gaussian(torch.zeros(SHAPE), torch.ones(SHAPE), scaled)
    with pytest.raises(UserError, match="linear schedule"):
        likelihood.nll(model, images, 1, 2, "test")


class Constant:
    """Predicts c everywhere; remembers the steps it was asked for."""

    device, schedule = torch.device("cpu"), Schedule.from_config(LINEAR)

    def __init__(self, value: float):
        self.value, self.steps = value, []

    def predict(self, x, t):
        self.steps += t.tolist()
        return torch.full_like(x, self.value)


def test_eps_error_of_constants_is_the_second_moment_of_the_noise(images):
    zero = likelihood.eps_error(Constant(0.0), images, 40, 30, "test")
    two = likelihood.eps_error(Constant(2.0), images, 40, 30, "test")
    assert zero.shape == (3, 30)
    assert zero.mean() == pytest.approx(1, abs=0.02) and two.mean() == pytest.approx(5, abs=0.05)


def test_eps_error_is_paired_and_covers_its_grid(images):
    model = Constant(0.0)
    first = likelihood.eps_error(model, images, 4, 2, "test", batch=5)
    assert sorted(set(model.steps)) == [125, 375, 625, 875] and len(model.steps) == 3 * 4 * 2
    assert likelihood.eps_error(Constant(0.0), images, 4, 2, "test") == pytest.approx(first)
    assert (likelihood.eps_error(Constant(0.0), images, 4, 2, "other") != first).all()


def test_eps_error_of_the_exact_model_is_its_bayes_error():
    model = Gaussian(torch.zeros(SHAPE), torch.ones(SHAPE))
    noise = np.random.Generator(np.random.PCG64(0)).normal(size=(200, 4, 4, 1))
    images = np.clip(np.round((noise * 0.2 + 1) * 127.5), 0, 255).astype(np.uint8)
    model.std = model.std * 0.2
    measured = likelihood.eps_error(model, images, 20, 2, "test").mean()
    t = torch.tensor([int((level + 0.5) * 50) for level in range(20)])
    abar = model.schedule.alpha_bar[t]
    expected = (abar * 0.04 / (abar * 0.04 + 1 - abar)).mean()
    assert measured == pytest.approx(float(expected), rel=0.03)
