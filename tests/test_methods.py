"""Losses and gradient combination against closed forms, brute force and the identities the papers prove."""

import pytest
import torch
from conftest import random_batch

from palinode import gradients, methods
from palinode.errors import UserError
from palinode.methods import siss
from palinode.training import Batch, Gradients

LAMBDAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def flat_gradients(method, model, batch) -> dict[str, torch.Tensor]:
    """One flat gradient per named loss, as the training loop makes them."""
    collected = Gradients(list(model.net.parameters()))
    collected.backward(method.losses(model, batch), 1.0)
    return collected.flat


@pytest.mark.parametrize("lam", LAMBDAS)
def test_siss_weights_satisfy_identity_and_bounds(lam):
    ratio = torch.linspace(-600, 600, 2001, dtype=torch.float64)
    w_x, w_a = siss.weights(ratio, lam)
    torch.testing.assert_close((1 - lam) * w_x + lam * w_a, torch.ones_like(ratio))
    assert (w_x >= 0).all() and (w_a >= 0).all()
    if 0 < lam < 1:
        assert w_x.max() <= 1 / (1 - lam) + 1e-12 and w_a.max() <= 1 / lam + 1e-12


def test_siss_weights_match_the_density_ratio():
    batch, gamma, sigma = random_batch(t=900), torch.tensor(0.3), torch.tensor(0.95)
    m = gamma * batch.x + sigma * batch.eps
    density = [
        torch.distributions.Normal(gamma * source, sigma).log_prob(m).flatten(1).sum(1).double() for source in
        (batch.x, batch.a)
    ]
    q_x, q_a = (d.exp() for d in density)
    w_x, w_a = siss.weights(siss.log_ratio(m, batch.x, batch.a, gamma, sigma), 0.3)
    torch.testing.assert_close(w_x, q_x / (0.7 * q_x + 0.3 * q_a), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(w_a, q_a / (0.7 * q_x + 0.3 * q_a), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_siss_is_finite_at_every_lambda_and_time(model, lam, t):
    method = methods.load("siss", {"lam": lam})
    grads = flat_gradients(method, model, random_batch(t=t))
    update, logged = method.combine(grads)
    assert torch.isfinite(update).all() and all(v == v for v in logged.values())


def plain_siss(model, batch, lam) -> dict[str, torch.Tensor]:
    """The two-backward form: every sample in both terms."""
    gamma, sigma = (v[batch.t].view(-1, 1, 1, 1) for v in (model.schedule.gamma, model.schedule.sigma))
    m = torch.where((batch.pick < lam).view(-1, 1, 1, 1), batch.a, batch.x) * gamma + sigma * batch.eps
    w_x, w_a = siss.weights(siss.log_ratio(m, batch.x, batch.a, gamma, sigma), lam)
    prediction = model.predict(m, batch.t)
    return {
        name: (w.float() * ((m - gamma * source) / sigma - prediction).square().flatten(1).sum(1)).sum() / len(m)
        for name, source, w in (("x", batch.x, w_x), ("a", batch.a, w_a))
    }


@pytest.mark.parametrize("t", [None, 700, 999])
def test_split_siss_equals_the_two_backward_form(model, t):
    batch = random_batch(size=32, t=t)
    split = flat_gradients(methods.load("siss", {"lam": 0.5}), model, batch)
    split = {name: grad.clone() for name, grad in split.items()}
    plain = Gradients(list(model.net.parameters()))
    plain.backward(plain_siss(model, batch, 0.5), 1.0)
    for name in ("x", "a"):
        assert (split[name] - plain.flat[name]).norm() <= 1e-5 * plain.flat[name].norm()


def test_split_siss_needs_one_backward_where_the_weights_are_one_hot(model):
    methods.load("siss", {"lam": 0.5}).losses(model, random_batch(size=16, t=10))
    model.passes = {"forward": 0, "backward": 0}
    flat_gradients(methods.load("siss", {"lam": 0.5}), model, random_batch(size=16, t=10))
    assert model.passes["forward"] == 16 and 16 <= model.passes["backward"] <= 18  # groups come in twos
    model.passes = {"forward": 0, "backward": 0}
    flat_gradients(methods.load("siss", {"lam": 0.5}), model, random_batch(size=16, t=999))
    assert model.passes == {"forward": 16, "backward": 32}


class SmallNet:
    """eps_theta of scalars, four parameters: gradients cheap enough for Monte Carlo."""

    def __init__(self, schedule):
        self.schedule, self.theta = schedule, torch.tensor([0.1, 0.3, -0.4, 0.2], requires_grad=True)

    def predict(self, x_t, t, condition=None):
        tau = (t / 1000).view(-1, 1, 1, 1).expand_as(x_t)
        return torch.stack([torch.ones_like(x_t), x_t, tau * x_t, torch.sin(3 * x_t)], -1) @ self.theta

    def gradient(self, loss) -> torch.Tensor:
        return torch.autograd.grad(loss, self.theta)[0]


def lemma_1(schedule, lam: float) -> torch.Tensor:
    """Difference of two gradients in standard errors, [4]: at s = 0 SISS's n/(n-k) w_x L_x - k/(n-k) w_a L_a over X,
    and naive deletion's L over X\\A. Forty independent batches, which share no draw.
    """
    size, n, k, net = 20_000, 5, 2, SmallNet(schedule)
    points = torch.tensor([-2.0, 0.1, 1.5, -0.7, 2.5]).view(-1, 1, 1, 1)  # the last two are A
    # Weights without a bound (lam 0 and 1) have a variance where the sources overlap only.
    first, differences = 600 if lam in (0, 1) else 20, []
    for round_ in range(40):
        generator = torch.Generator().manual_seed(round_)

        def draw(low: int, high: int, generator=generator) -> torch.Tensor:
            return torch.randint(low, high, (size,), generator=generator)

        def batch(x, a, generator=generator, draw=draw) -> Batch:
            eps, pick = torch.randn(size, 1, 1, 1, generator=generator), torch.rand(size, generator=generator)
            return Batch(x, a, draw(first, 1000), eps, pick, 1000, generator)

        terms = methods.load("siss", {"lam": lam}).losses(net, batch(points[draw(0, n)], points[draw(n - k, n)]))
        siss_gradient = net.gradient(n / (n - k) * terms["x"] - k / (n - k) * terms["a"])
        kept = points[draw(0, n - k)]
        naive = methods.load("naive_deletion").losses(net, batch(kept, kept))
        differences.append(siss_gradient - net.gradient(naive["x"]))
    differences = torch.stack(differences)
    return differences.mean(0) / (differences.std(0) / len(differences) ** 0.5)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_lemma_1_every_lambda_has_the_gradient_of_naive_deletion(model, lam, monkeypatch):
    """SISS, Lemma 1; and the same measure finds weights that are swapped, and those of no importance sampling."""
    assert lemma_1(model.schedule, lam).abs().max() < 4
    right = siss.weights
    for wrong in (lambda log_r, lam: right(log_r, lam)[::-1], lambda log_r, lam: [torch.ones_like(log_r)] * 2):
        monkeypatch.setattr(siss, "weights", wrong)
        assert lemma_1(model.schedule, lam).abs().max() > 8


def test_one_network_pass_counts():
    """Forward and backward samples per batch sample, as in the SISS digest, section 4.1."""
    from conftest import SCHEDULER, UNET

    from palinode import models

    expected = {"naive_deletion": (1, 1), "neggrad": (1, 1), "siss_no_is": (2, 2), "erasediff_siss": (2, 2)}
    expected["erasediff"] = (2, 2)
    for name, (forward, backward) in expected.items():
        model = models.create(UNET, SCHEDULER, seed=1)
        flat_gradients(methods.load(name), model, random_batch(size=4))
        assert model.passes == {"forward": 4 * forward, "backward": 4 * backward}, name


def test_hold_ratio_keeps_ten_percent_and_skips_a_vanished_gradient():
    g_x, g_a = torch.randn(50), torch.randn(50) * 1e-9
    update, s = gradients.hold_ratio_(g_x.clone(), g_a, 0.1)
    assert float((update - g_x).norm() / g_x.norm()) == pytest.approx(0.1, rel=1e-3) and s > 0
    update, s = gradients.hold_ratio_(g_x.clone(), torch.zeros(50), 0.1)
    assert torch.equal(update, g_x) and s == 0.0


def test_hold_norm_keeps_the_official_constant():
    g_x, g_a = torch.zeros(50), torch.randn(50)
    update, _ = gradients.hold_norm_(g_x.clone(), g_a, 5.0)
    assert float(update.norm()) == pytest.approx(5.0)


@pytest.mark.parametrize("seed", range(20))
def test_constrained_update_solves_the_quadratic_program(seed):
    generator = torch.Generator().manual_seed(seed)
    g_r, g_f = torch.randn(2, 30, generator=generator)
    eta = 0.1
    update, lam = gradients.constrained(g_r, g_f, eta)
    bound = eta * float(g_f @ g_f)
    assert float(g_f @ update) >= bound - 1e-4
    if lam > 0:
        assert float(g_f @ update) == pytest.approx(bound, abs=1e-4)
    else:
        assert torch.equal(update, g_r)
    for _ in range(50):  # no feasible point is nearer to g_r
        other = torch.randn(30, generator=generator)
        other = other + max(0.0, (bound - float(g_f @ other)) / float(g_f @ g_f)) * g_f
        assert (g_r - update).norm() <= (g_r - other).norm() + 1e-5


def test_constrained_without_a_forget_gradient_is_the_retain_gradient():
    g_r = torch.randn(10)
    assert torch.equal(gradients.constrained(g_r, torch.zeros(10), 0.1)[0], g_r)


def test_neggrad_climbs_the_forget_loss(model):
    batch, method = random_batch(), methods.load("neggrad")
    grads = flat_gradients(method, model, batch)
    update, _ = method.combine(grads)
    torch.testing.assert_close(update, -0.01 * grads["a"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sis", {}, "unknown method 'sis'"),
        ("_superfactor", {}, "unknown method"),
        ("siss", {"lamb": 0.5}, "lamb: unknown parameter"),
        ("siss", {"lam": "half"}, "lam: Input should be a valid number"),
    ],
)
def test_wrong_methods_and_options_are_named(name, options, words):
    with pytest.raises(UserError, match=words):
        methods.load(name, options)


def test_a_number_written_as_a_string_is_a_number():
    assert methods.load("siss", {"lam": "5e-01"}).lam == 0.5
