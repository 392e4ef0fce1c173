"""Losses and gradient combination against closed forms, brute force and the identities the papers prove."""

import dataclasses
import importlib
import re
import sys
import typing
from pathlib import Path

import pytest
import torch
from conftest import random_batch

from palinode import methods
from palinode.core.errors import UserError
from palinode.methods import _gradients, _mixture, siss, siss_selective
from palinode.methods._superfactor import Superfactor
from palinode.training.batches import Batch
from palinode.training.loop import Gradients

LAMBDAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def flat_gradients(method, model, batch) -> dict[str, torch.Tensor]:
    """One flat gradient per named loss, as the training loop makes them."""
    collected = Gradients(list(model.net.parameters()))
    collected.backward(method.losses(model, batch), 1.0)
    return collected.flat


def begun(name: str, **options) -> methods.Method:
    """A method as the driver hands it to the loop; SISS's rule is a ratio unless `options` say otherwise."""
    cls = methods.find(name)
    if issubclass(cls, Superfactor) and not {"norm", "ratio"} & options.keys():
        options |= {"ratio": 0.1}
    method = methods.load(name, options)
    method.begin(None, {"seed": 1})
    return method


@pytest.mark.parametrize("lam", LAMBDAS)
def test_siss_weights_satisfy_identity_and_bounds(lam):
    ratio = torch.linspace(-600, 600, 2001, dtype=torch.float64)
    w_x, w_a = _mixture.weights(ratio, lam)
    torch.testing.assert_close((1 - lam) * w_x + lam * w_a, torch.ones_like(ratio))
    assert (w_x >= 0).all() and (w_a >= 0).all()
    if 0 < lam < 1:
        assert w_x.max() <= 1 / (1 - lam) + 1e-12 and w_a.max() <= 1 / lam + 1e-12


def test_siss_weights_match_the_density_ratio():
    batch, gamma, sigma = random_batch(t=900), torch.tensor(0.3), torch.tensor(0.95)
    m = gamma * batch.x + sigma * batch.eps
    density = [
        torch.distributions.Normal(gamma * source, sigma).log_prob(m).flatten(1).sum(1).double()
        for source in (batch.x, batch.a)
    ]
    q_x, q_a = (d.exp() for d in density)
    w_x, w_a = _mixture.weights(_mixture.log_ratio(m, batch.x, batch.a, gamma, sigma), 0.3)
    torch.testing.assert_close(w_x, q_x / (0.7 * q_x + 0.3 * q_a), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(w_a, q_a / (0.7 * q_x + 0.3 * q_a), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_siss_is_finite_at_every_lambda_and_time(model, lam, t):
    method = begun("siss", lam=lam)
    grads = flat_gradients(method, model, random_batch(t=t))
    update, logged = method.combine(grads)
    assert torch.isfinite(update).all() and all(v == v for v in logged.values())


def plain_siss(model, batch, lam) -> dict[str, torch.Tensor]:
    """The two-backward form: every sample in both terms."""
    gamma, sigma = (v[batch.t].view(-1, 1, 1, 1) for v in (model.schedule.gamma, model.schedule.sigma))
    m = torch.where((batch.u < lam).view(-1, 1, 1, 1), batch.a, batch.x) * gamma + sigma * batch.eps
    w_x, w_a = _mixture.weights(_mixture.log_ratio(m, batch.x, batch.a, gamma, sigma), lam)
    prediction = model.predict(m, batch.t)
    return {
        name: (w.float() * ((m - gamma * source) / sigma - prediction).square().flatten(1).sum(1)).sum() / len(m)
        for name, source, w in (("retain", batch.x, w_x), ("forget", batch.a, w_a))
    }


@pytest.mark.parametrize("t", [None, 700, 999])
def test_split_siss_equals_the_two_backward_form(model, t):
    batch = random_batch(size=32, t=t)
    split = flat_gradients(begun("siss"), model, batch)
    split = {name: grad.clone() for name, grad in split.items()}
    plain = Gradients(list(model.net.parameters()))
    plain.backward(plain_siss(model, batch, 0.5), 1.0)
    for name in ("retain", "forget"):
        assert (split[name] - plain.flat[name]).norm() <= 1e-5 * plain.flat[name].norm()


def test_split_siss_needs_one_backward_where_the_weights_are_one_hot(model):
    begun("siss").losses(model, random_batch(size=16, t=10))
    model.nfe = {"forward": 0, "backward": 0}
    flat_gradients(begun("siss"), model, random_batch(size=16, t=10))
    assert model.nfe["forward"] == 16 and 16 <= model.nfe["backward"] <= 18  # groups come in twos
    model.nfe = {"forward": 0, "backward": 0}
    flat_gradients(begun("siss"), model, random_batch(size=16, t=999))
    assert model.nfe == {"forward": 16, "backward": 32}


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
            eps = torch.randn(size, 1, 1, 1, generator=generator)
            u = torch.rand(size, generator=generator)
            return Batch(x, a, draw(first, 1000), eps, u, 1000, generator)

        terms = begun("siss", lam=lam).losses(net, batch(points[draw(0, n)], points[draw(n - k, n)]))
        siss_gradient = net.gradient(n / (n - k) * terms["retain"] - k / (n - k) * terms["forget"])
        kept = points[draw(0, n - k)]
        naive = methods.load("naive_deletion").losses(net, batch(kept, kept))
        differences.append(siss_gradient - net.gradient(naive["retain"]))
    differences = torch.stack(differences)
    return differences.mean(0) / (differences.std(0) / len(differences) ** 0.5)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_lemma_1_every_lambda_has_the_gradient_of_naive_deletion(model, lam, monkeypatch):
    """SISS, Lemma 1; and the same measure finds weights that are swapped, and those of no importance sampling."""
    assert lemma_1(model.schedule, lam).abs().max() < 4
    right = _mixture.weights
    for wrong in (lambda log_r, lam: right(log_r, lam)[::-1], lambda log_r, lam: [torch.ones_like(log_r)] * 2):
        monkeypatch.setattr(siss, "weights", wrong)
        assert lemma_1(model.schedule, lam).abs().max() > 8


def test_one_network_pass_counts():
    """Forward and backward samples per batch sample: SISS and its ablations differ in cost by these alone."""
    from conftest import SCHEDULER, UNET

    from palinode.models import unconditional

    expected = {"naive_deletion": (1, 1), "neggrad": (1, 1), "siss_no_is": (2, 2), "erasediff_siss": (2, 2)}
    expected["erasediff"] = (2, 2)
    for name, (forward, backward) in expected.items():
        model = unconditional.create(UNET, SCHEDULER, seed=1)
        grads = flat_gradients(begun(name), model, random_batch(size=4))
        assert set(grads) <= set(methods.LOSSES)
        assert model.nfe == {"forward": 4 * forward, "backward": 4 * backward}, name


def test_hold_ratio_keeps_ten_percent_and_skips_a_vanished_gradient():
    g_retain = torch.randn(50)
    g_forget = torch.randn(50) * 1e-5
    update, s = _gradients.hold_ratio_(g_retain.clone(), g_forget, 0.1)
    assert float((update - g_retain).norm() / g_retain.norm()) == pytest.approx(0.1, rel=1e-3) and s > 0
    update, s = _gradients.hold_ratio_(g_retain.clone(), torch.zeros(50), 0.1)
    assert torch.equal(update, g_retain) and s == 0.0


def test_a_forget_gradient_below_the_precision_of_the_other_is_skipped():
    """As in the official code, which finds it as a difference of float32 sums."""
    g_retain = torch.ones(50)
    for rule in (_gradients.hold_ratio_, _gradients.hold_norm_):
        update, s = rule(g_retain.clone(), torch.full((50,), 1e-8), 0.5)
        assert torch.equal(update, g_retain) and s == 0
        assert rule(g_retain.clone(), torch.full((50,), 1e-6), 0.5)[1] > 0


@pytest.mark.parametrize("options", [{}, {"norm": 5, "ratio": 0.1}])
def test_the_rule_of_siss_has_no_default(options):
    with pytest.raises(UserError, match="either `norm`, which `make norms` measures for a task, or `ratio`"):
        methods.load("siss", options)


def test_siss_refreshes_its_superfactor_every_k_steps(model):
    """In between, one backward pass gives the same direction as two at that superfactor."""
    method = begun("siss", norm=3.0, refresh=3)
    exact = begun("siss", norm=3.0)
    names = []
    for step in range(7):
        batch = random_batch(size=16, seed=step)
        model.nfe = {"forward": 0, "backward": 0}
        grads = {name: g.clone() for name, g in flat_gradients(method, model, batch).items()}
        names.append(set(grads))
        if step % 3:
            assert model.nfe == {"forward": 16, "backward": 16}
            whole = flat_gradients(exact, model, batch)
            wanted = whole["retain"] - method._superfactor * whole["forget"]
            assert (grads["combined"] - wanted).norm() <= 1e-5 * wanted.norm()
        _, logged = method.combine(grads)
        assert logged["superfactor"] == method._superfactor > 0
        method.after_step()
    both = {"retain", "forget"}
    assert names == [both, {"combined"}, {"combined"}, both, {"combined"}, {"combined"}, both]
    resumed = begun("siss", norm=3.0, refresh=3)
    resumed.load_state_dict(method.state_dict())
    assert (resumed._step, resumed._superfactor) == (7, method._superfactor)


def test_selective_forgetting_takes_low_frequencies_and_some_times(model):
    residual = torch.randn(3, 2, 8, 8)
    everything = siss_selective.select_low(residual, 100.0)
    torch.testing.assert_close(everything, residual.square().flatten(1).sum(1), msg="Parseval")
    means = siss_selective.select_low(residual, 0.5)
    torch.testing.assert_close(means, 64 * residual.mean((2, 3)).square().sum(1))
    method = begun("siss_selective", times=[0.25, 0.5], radius=2)
    t = torch.tensor([249, 250, 499])
    error = method.error("forget", residual[:, :1], t, 1000)
    assert error[0] == 0 and error[1] > 0 and error[2] > 0
    assert torch.equal(method.error("retain", residual, t, 1000), residual.square().flatten(1).sum(1))
    batch = random_batch(size=16, t=700)
    assert not flat_gradients(method, model, batch)["forget"].any()
    with pytest.raises(UserError, match=r"times: no time step lies between 0\.5 and 0\.5"):
        methods.load("siss_selective", {"norm": 5, "times": [0.5, 0.5]})


def test_retrack_is_the_posterior_over_neighbours(model):
    batch = random_batch(size=4)
    batch.neighbours = torch.rand(4, 3, *batch.a.shape[1:], generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch.generator.manual_seed(2)
    losses = begun("retrack").losses(model, batch)
    batch.generator.manual_seed(2)
    t, eps = batch.redraw()
    a_t = model.schedule.add_noise(batch.a, eps, t)
    total = 0.0
    for i in range(4):
        gamma, sigma = float(model.schedule.gamma[t[i]]), float(model.schedule.sigma[t[i]])
        log_q = torch.stack([-((a_t[i] - gamma * x).double() ** 2).sum() / (2 * sigma**2) for x in batch.neighbours[i]])
        p = (log_q - log_q.logsumexp(0)).exp()
        predicted = model.predict(a_t[i : i + 1], t[i : i + 1])[0].detach()
        v = [(a_t[i] - gamma * x) / sigma for x in batch.neighbours[i]]
        total += sum(float(p[k] * (v[k] - predicted).square().sum()) for k in range(3)) / 4
    assert float(losses["forget"].detach()) == pytest.approx(total, rel=1e-4)
    grads = {name: torch.tensor([value]) for name, value in (("forget", 100.0), ("retain", 10.0))}
    assert float(begun("retrack").combine(grads)[0]) == pytest.approx(0.005 * 100 + 0.995 * 10)


def test_hold_norm_keeps_the_official_constant():
    update, _ = _gradients.hold_norm_(torch.zeros(50), torch.randn(50), 5.0)
    assert float(update.norm()) == pytest.approx(5.0)


@pytest.mark.parametrize("seed", range(20))
def test_constrained_update_solves_the_quadratic_program(seed):
    generator = torch.Generator().manual_seed(seed)
    g_r, g_f = torch.randn(2, 30, generator=generator)
    eta = 0.1
    update, lam = _gradients.constrain(g_r, g_f, eta)
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
    assert torch.equal(_gradients.constrain(g_r, torch.zeros(10), 0.1)[0], g_r)


def test_neggrad_climbs_the_forget_loss(model):
    method = methods.load("neggrad")
    grads = flat_gradients(method, model, random_batch())
    update, _ = method.combine(grads)
    torch.testing.assert_close(update, -0.01 * grads["forget"])


# The contract


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("sis", {}, r"unknown method 'sis': there is no methods/sis\.py"),
        ("siss-05", {}, "unknown method 'siss-05': a method has the name of its file"),
        ("../siss", {}, r"unknown method '\.\./siss': a method has the name of its file"),
        ("_superfactor", {}, "unknown method '_superfactor'"),
        ("siss", {"lamb": 0.5}, "lamb: unknown parameter"),
        ("siss", {"lam": "half"}, "lam: Input should be a valid number"),
        ("siss", {"lam": True}, "lam: Input should be a valid number"),
        ("siss", {"lam": float("nan")}, "lam: Input should be a finite number"),
        ("doco", {"leak": "perhaps"}, "leak: Input should be a valid boolean"),
        ("doco", {"retain": "half"}, "retain: Input should be 'none', 'sum', 'project'"),
        ("doco", {"widths": [16, "wide"]}, r"widths\.1: Input should be a valid integer"),
    ],
)
def test_wrong_methods_and_options_are_named(name, options, words):
    with pytest.raises(UserError, match=rf"^rows\.mine: {words}") as refused:
        methods.load(name, options, "rows.mine: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name, options",
    [
        ("siss", {"lam": 1.5}),
        ("siss", {"lam": -0.1}),
        ("siss", {"tolerance": 1}),
        ("siss", {"ratio": 0}),
        ("siss", {"norm": 0}),
        ("siss", {"refresh": 0}),
        ("siss_selective", {"radius": 0}),
        ("siss_selective", {"times": [0.2, 1.2]}),
        ("retrack", {"lam": 1.1}),
        ("siss_no_is", {"norm": -5}),
        ("neggrad", {"superfactor": 0}),
        ("erasediff", {"eta": -0.1}),
        ("erasediff_siss", {"eta": -0.1}),
        ("salun", {"share": 0}),
        ("salun", {"share": 1.1}),
        ("salun", {"alpha": -1}),
        ("selective_amnesia", {"gamma": -1}),
        ("selective_amnesia", {"lam": -1}),
        ("esd", {"eta": -1}),
        ("esd", {"guidance": 0}),
        ("concept_ablation", {"w": -1}),
        ("anchored", {"beta": -1}),
        ("doco", {"warmup": -1}),
        ("doco", {"rate": 0}),
        ("doco", {"weight": -1}),
        ("doco", {"widths": []}),
        ("doco", {"widths": [16, 0]}),
        ("doco", {"widths": [12]}),
        ("uce", {"a": 0}),
        ("uce", {"b": -1}),
        ("uce", {"lam": 0}),
    ],
)
def test_options_have_ranges(name, options):
    (option,) = options
    with pytest.raises(UserError, match=rf"^rows\.mine\.options: {option}[:.]") as refused:
        methods.load(name, options, "rows.mine.options: ")
    assert "\n" not in str(refused.value)


def test_options_are_converted_to_the_types_of_their_fields():
    lam = methods.load("siss", {"norm": 5, "lam": "5e-01"}).lam
    assert lam == 0.5, "`dvc exp run -S` writes numbers that YAML calls words"
    assert methods.load("siss", {"norm": 5}).norm == 5.0
    assert methods.load("siss", {"norm": None, "ratio": 0.1}).norm is None
    assert methods.load("doco", {"widths": [8, 16], "leak": True}).widths == (8, 16)


@pytest.mark.parametrize("name", methods.names())
def test_every_number_among_the_options_has_a_range(name):
    """A default is within the range of its own field, and no number is without a range."""
    cls = methods.find(name)
    needed = {"norm": 5.0} if issubclass(cls, Superfactor) else {}
    methods.load(name, {field.name: field.default for field in dataclasses.fields(cls)} | needed)
    plain = typing.get_type_hints(cls)
    ranged = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if "float" in str(plain[field.name]) or "int" in str(plain[field.name]):
            assert "FieldInfo" in str(ranged[field.name]), f"{name}.{field.name} has no range"


@pytest.mark.parametrize("name", methods.names())
def test_every_method_names_its_source(name):
    """Or says that it is an own form; what a published method cites is enough to look it up."""
    source = methods.find(name).source
    assert source is not None and source.paper
    assert isinstance(source.deviations, tuple) and all(line.endswith(".") for line in source.deviations)
    if "own form" not in source.paper:
        assert re.fullmatch(r"\d{4}\.\d{5}", source.arxiv)
        assert re.match(r"[\w-]+/[\w-]+ at [0-9a-f]{7}\b", source.repository), "owner/name at commit"
        assert source.venue and source.equation and source.deviations


def test_no_method_cites_what_is_not_in_the_repository():
    for path in Path(methods.__path__[0]).glob("*.py"):
        text = path.read_text()
        assert "digest" not in text.lower() and not re.search(r"\w\.md\b", text.replace("METHODS.md", "")), path.name


# Files of methods, as a person writes them


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write methods/<name>.py, beside the methods there are; afterwards nothing of it stays imported."""
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    made: list[str] = []

    def put(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(HEAD + text)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, f"palinode.methods.{name}", raising=False)
        if name not in vars(methods):
            made.append(name)

    yield put
    for name in made:
        vars(methods).pop(name, None)


HEAD = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Annotated
from pydantic import Field
from palinode.methods import Method
from palinode.methods._superfactor import Superfactor
"""
BODY = """
    def losses(self, model, batch):
        return {"retain": batch.x.sum()}

    def combine(self, grads):
        return grads["retain"], {}
"""


DROP_IN = f"""
@dataclass
class DropIn(Superfactor):
    needs = frozenset({{"unconditional"}})
    alpha: Annotated[float, Field(gt=0)] = 0.1
    steps: int = field(default=0, init=False)
{BODY}
    def after_step(self):
        self.steps += 1
"""
OWN_CHECK = f"""
@dataclass
class OwnCheck(Method):
    low: float = 0.0
    high: float = 1.0
{BODY}
    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("low is above high")
"""


def test_a_file_is_a_method(write):
    """Its options are checked although their types are strings, and a state needs no special base."""
    write("drop_in", DROP_IN)
    method = methods.load("drop_in", {"alpha": 2, "ratio": 0.2})
    method.after_step()
    assert (method.alpha, method.ratio, method.steps) == (2.0, 0.2, 1)
    assert method.needs == {"unconditional"} and not method.closed_form and method.source is None
    assert "drop_in" in methods.names()
    for options, words in (({"alpha": 0}, "alpha: Input should be greater than 0"), ({"steps": 1}, "steps: unknown")):
        options |= {"ratio": 0.2}
        with pytest.raises(UserError, match=words):
            methods.load("drop_in", options)


def test_a_method_may_have_the_name_of_another_package(write):
    write("json", f"@dataclass\nclass Mine(Method):\n{BODY}")
    assert type(methods.load("json")).__name__ == "Mine"


def test_a_required_option_is_asked_for(write):
    write("asking", f"@dataclass\nclass Asking(Method):\n    alpha: float\n{BODY}")
    with pytest.raises(UserError, match=r"^rows\.mine: alpha: missing parameter$"):
        methods.load("asking", {}, "rows.mine: ")


@pytest.mark.parametrize(
    "text, words",
    [
        ("class Bad(Method)\n    pass", r"cannot be imported: expected ':' \(bad\.py, line 8\)"),
        ("", "must define exactly one subclass of Method, it has none"),
        (f"@dataclass\nclass A(Method):\n{BODY}\n@dataclass\nclass B(Method):\n{BODY}", "it has A, B"),
        ("import no_such_package", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise ValueError('two\\nlines')", "cannot be imported: ValueError: two lines"),
        (f"@dataclass(frozen=True)\nclass Bad(Superfactor):\n{BODY}", "write @dataclass without frozen=True"),
        (f"class Bad(Method):\n    alpha: float = 1.0\n{BODY}", "Bad is no dataclass: write @dataclass above it"),
        ("@dataclass\nclass Bad(Method):\n    alpha: float = 1.0", "Bad defines no losses"),
        ("@dataclass\nclass Bad(Method):\n    closed_form = True", "Bad defines no edit"),
        (f"@dataclass\nclass Bad(Method):\n    _alpha: float = 1.0\n{BODY}", "Bad has an option '_alpha'"),
        (
            f"@dataclass\nclass Bad(Method):\n    needs = frozenset({{'anker'}})\n{BODY}",
            "Bad needs anker, which is not one of",
        ),
        (f"@dataclass\nclass Bad(Method):\n    needs = 'anchor'\n{BODY}", "Bad: needs must be a frozenset of words"),
        (
            f"@dataclass\nclass Bad(Method):\n    needs: frozenset = frozenset({{'anchor'}})\n{BODY}",
            "Bad annotates 'needs', which makes it an option: write it without a type",
        ),
        (f"@dataclass\nclass Bad(Method):\n    closed_form: bool = True\n{BODY}", "Bad annotates 'closed_form'"),
        (f"@dataclass\nclass Bad(Method):\n    source: object = None\n{BODY}", "Bad annotates 'source'"),
    ],
)
def test_a_bad_file_is_one_line(write, text, words):
    write("bad", text)
    with pytest.raises(UserError, match=words) as refused:
        methods.load("bad", {}, "rows.mine: ")
    message = str(refused.value)
    assert message.startswith("rows.mine: methods/bad.py") and "\n" not in message


def test_what_an_option_is_must_be_known(write):
    write("vague", f"@dataclass\nclass Vague(Method):\n    alpha: Unknown = 1\n{BODY}")
    with pytest.raises(UserError, match="the type of an option of Vague is unknown: name 'Unknown' is not defined"):
        methods.load("vague", {"alpha": 1})


def test_a_method_may_check_its_options_together(write):
    write("own_check", OWN_CHECK)
    with pytest.raises(UserError, match=r"^rows\.mine: own_check: low is above high$"):
        methods.load("own_check", {"low": 2}, "rows.mine: ")
