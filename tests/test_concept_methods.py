"""The methods of concept unlearning against closed forms, brute force and what their papers prove."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import SCHEDULER, UNET, training

from palinode import methods
from palinode.core.errors import UserError
from palinode.core.scratch import Scratch
from palinode.methods import _discriminator, _gradients, salun, uce
from palinode.methods._superfactor import Superfactor
from palinode.models import class_conditional
from palinode.models.guidance import Guided
from palinode.models.text_to_image import first_token_detached
from palinode.sampling.samplers import ddim_step
from palinode.training import importance
from palinode.training.concept_batches import ConceptBatches, ConceptData
from palinode.training.loop import Gradients, train

OPTIONS = {name: {"norm": 5.0} for name in methods.names() if issubclass(methods.find(name), Superfactor)}
NEEDS = {name: methods.load(name, OPTIONS.get(name)).needs for name in methods.names()}
NAMES = [name for name, needs in NEEDS.items() if not {"unconditional", "text"} & needs]


@pytest.fixture
def model():
    return class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)


@pytest.fixture
def data() -> ConceptData:
    """Class 2 is the target, class 0 the anchor, 0 and 1 are kept."""
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(4, 12, 1, 8, 8, generator=g) * 2 - 1
    return ConceptData(
        prompts=[None, 0, 1, 2],
        retain=pictures[0],
        retain_prompt=torch.randint(1, 3, (12,), generator=g),
        forget=pictures[1],
        forget_prompt=torch.full((12,), 3),
        anchor=pictures[2],
        anchor_prompt=torch.full((12,), 1),
    )


@pytest.fixture
def batch(model, data):
    return next(ConceptBatches(data, model, 6, 1, (1, "test"))(0))


def statistics(model) -> dict:
    count = sum(p.numel() for p in model.net.parameters())
    g = torch.Generator().manual_seed(3)
    return {"seed": 5, "saliency": torch.rand(count, generator=g), "fisher": torch.rand(count, generator=g)}


def begun(name: str, model, **options) -> methods.Method:
    method = methods.load(name, options)
    method.begin(model, statistics(model))
    return method


def flat(method, model, batch) -> dict[str, torch.Tensor]:
    collected = Gradients(model.trainable())
    collected.backward(method.losses(model, batch), 1.0)
    return {name: g.clone() for name, g in collected.flat.items()}


# Combining gradients


def pair(seed: int = 0, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, size, generator=torch.Generator().manual_seed(seed)).double())


@pytest.mark.parametrize("seed", range(5))
def test_nash_weights_are_the_bargaining_point(seed):
    g_r, g_f = pair(seed)
    g, a_r, a_f = _gradients.bargain(g_r, g_f)
    gram = torch.stack([g_r, g_f]) @ torch.stack([g_r, g_f]).T
    a = torch.tensor([a_r, a_f]).double()
    torch.testing.assert_close(gram @ a, 1 / a, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(g, a_r * g_r + a_f * g_f)
    assert g @ g_r > 0 and g @ g_f > 0, "both players gain"
    scaled = _gradients.bargain(100 * g_r, g_f)[0]
    torch.testing.assert_close(scaled, g, msg="the scale of a loss changes nothing")
    assert _gradients.bargain(g_r, -g_r)[1:] == (1.0, 0.5) and _gradients.bargain(g_r, 0 * g_f)[1:] == (1.0, 0.5)


@pytest.mark.parametrize("sizes", [[40], [10, 20, 10]])
def test_projection_is_orthogonal_where_it_acts_and_nothing_elsewhere(sizes):
    g_u, g_r = pair(1)
    g, share = _gradients.project(g_u, g_r, sizes)
    acted = 0
    for before, after, r in zip(g_u.split(sizes), g.split(sizes), g_r.split(sizes), strict=True):
        if before @ r < 0:
            acted += 1
            assert abs(float(after @ r)) < 1e-9
        else:
            assert torch.equal(before, after)
    assert share == acted / len(sizes)
    assert torch.equal(_gradients.project(g_u, g_u, sizes)[0], g_u) and _gradients.project(g_u, -g_u, sizes)[1] == 1


def test_the_published_surgery_overshoots():
    """32 tensors that share norm 1: the result descends the anchor's loss instead of leaving it as it is."""
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(32, 50, generator=generator).double()
    u = torch.randn(32, 50, generator=generator).double() - 0.5 * r
    g_u, g_r, sizes = u.flatten(), r.flatten(), [50] * 32
    exact, _ = _gradients.project(g_u, g_r, sizes)
    published, _ = _gradients.project_as_published(g_u, g_r, sizes)
    assert abs(float(_gradients.cosine(exact, g_r))) < 1e-6 < 0.2 < float(_gradients.cosine(published, g_r))
    unit = g_u / g_u.norm()
    at_norm_1, _ = _gradients.project_as_published(unit, g_r, [1600])
    torch.testing.assert_close(at_norm_1, _gradients.project(unit, g_r, [1600])[0], msg="at norm 1 they agree")


def test_the_cosine_rule_is_not_the_ratio_rule():
    g_r, g_f = pair(2)
    g_r = g_r - 3 * g_f
    cos = float(_gradients.cosine(g_r, g_f))
    assert cos < 0
    g, lam = _gradients.constrain_by_cosine(g_r, g_f, 0.1)
    assert lam == pytest.approx(0.1 - cos) and torch.equal(g, g_r + lam * g_f)
    ratio = _gradients.constrain(g_r, g_f, 0.1)[1]
    assert ratio > lam + 1 and g @ g_f < 0, "conflict remains where the ratio rule would remove it"
    assert _gradients.constrain_by_cosine(g_r, 0 * g_f, 0.1) == (pytest.approx(g_r), 0.0)


# Methods


@pytest.mark.parametrize("name", NAMES)
def test_every_method_gives_finite_gradients(name, model, batch):
    method = begun(name, model, **({"warmup": 0} if name == "doco" else {}))
    grads = flat(method, model, batch)
    assert set(grads) <= set(methods.LOSSES)
    direction, logged = method.combine(grads)
    assert torch.isfinite(direction).all() and direction.any() and all(v == v for v in logged.values())


@pytest.mark.parametrize(
    "name, options, needs",
    [(name, {}, NEEDS[name]) for name in NAMES] + [("erasediff", {"target": "rl"}, {"anchor"})],
)
def test_a_method_uses_no_more_than_it_needs(name, options, needs, model, batch):
    """Of a batch that offers just what `needs` says, and of statistics likewise."""
    method = methods.load(name, options | ({"warmup": 0} if name == "doco" else {}))
    assert method.needs == needs <= set(methods.NEEDS)
    fields = ["x", "a", "t", "eps", "u", "total", "generator", "c_x", "c_a", "redraw", "uniform"]
    fields += ["anchor", "c_anchor"] if "anchor" in needs else []
    fields += ["c_null", "trajectory_states"] if "trajectory" in needs else []
    offered = {word: value for word, value in statistics(model).items() if word in {"seed"} | needs}
    method.begin(model, offered)
    assert method.losses(model, SimpleNamespace(**{field: getattr(batch, field) for field in fields}))


@pytest.mark.parametrize("name", [name for name in methods.names() if "unconditional" in NEEDS[name]])
def test_a_method_that_needs_an_unconditional_model_gives_no_condition(name, model, batch):
    batch.neighbours = batch.a.unsqueeze(1)
    with pytest.raises(ValueError, match="class_labels should be provided"):
        begun(name, model, **OPTIONS.get(name, {})).losses(model, batch)


def test_relabelling_takes_the_anchors_prediction(model, batch):
    for name, options in (("erasediff", {"target": "rl"}), ("salun", {}), ("munba", {})):
        batch.generator.manual_seed(9)
        loss = begun(name, model, **options).losses(model, batch)["forget"]
        batch.generator.manual_seed(9)
        t, eps = batch.redraw()
        a_t = model.schedule.add_noise(batch.a, eps, t)
        with torch.no_grad():
            wanted = (model.predict(a_t, t, batch.c_anchor) - model.predict(a_t, t, batch.c_a)).square().sum() / len(
                a_t
            )
        torch.testing.assert_close(loss.detach(), wanted)


def test_the_inner_loop_of_erasediff_changes_no_update(model, batch):
    """K steps on a copy give a constant; with weights and optimiser restored, the outer gradient is the same."""
    method = begun("erasediff", model, target="rl")
    batch.generator.manual_seed(4)
    plain = flat(method, model, batch)
    inner = copy.deepcopy(model)
    adam = torch.optim.Adam(inner.net.parameters(), 1e-3)
    for _ in range(2):
        batch.generator.manual_seed(4)
        adam.zero_grad()
        method.losses(inner, batch)["forget"].backward()
        adam.step()
    batch.generator.manual_seed(4)
    constant = method.losses(inner, batch)["forget"].detach()
    batch.generator.manual_seed(4)
    losses = method.losses(model, batch)
    assert constant < losses["forget"]
    collected = Gradients(model.trainable())
    collected.backward({"retain": losses["retain"], "forget": losses["forget"] - constant}, 1.0)
    assert all(torch.equal(collected.flat[name], plain[name]) for name in plain)


def test_salun_keeps_the_stated_share(model, batch):
    saliency = torch.rand(1001, generator=torch.Generator().manual_seed(0))
    chosen = salun.select_salient(saliency, 0.3)
    assert chosen.sum() == 300 and saliency[chosen == 1].min() >= saliency[chosen == 0].max()
    model.net.requires_grad_(False)
    model.net.mid_block.requires_grad_(True)
    method = begun("salun", model, share=0.25)
    grads = flat(method, model, batch)
    direction, _ = method.combine(grads)
    assert len(direction) == sum(p.numel() for p in model.net.mid_block.parameters())
    assert (direction != 0).float().mean() <= 0.25 + 1e-3


def test_the_penalty_of_selective_amnesia_has_the_right_gradient(model, batch):
    method = begun("selective_amnesia", model)
    assert float(method.losses(model, batch)["penalty"].detach()) == 0
    parameter = next(model.net.parameters())
    with torch.no_grad():
        parameter.view(-1)[3] += 0.01
    gradient = flat(method, model, batch)["penalty"]
    assert gradient.count_nonzero() == 1
    step, values = 1e-3, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.view(-1)[3] += sign * step
            values.append(float(method.losses(model, batch)["penalty"].double()))
            parameter.view(-1)[3] -= sign * step
    assert float(gradient[3]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


def test_esd_counts_its_guidance_from_the_unconditional_prediction(model, batch):
    """eta -1 asks for what the original predicts; eta 1 is the repository's 2, counted from the conditional one."""
    method = begun("esd", model)
    method.eta = -1.0
    assert float(method.losses(model, batch)["forget"].detach()) < 1e-8
    batch.generator.manual_seed(3)
    loss = begun("esd", model).losses(model, batch)["forget"].detach()
    batch.generator.manual_seed(3)
    z_t, t = batch.trajectory_states(model, 3.0)
    with torch.no_grad():
        e_c, e_0 = (model.predict(z_t, t, c) for c in (batch.c_a, batch.c_null.expand_as(batch.c_a)))
    target = e_c - 2 * (e_c - e_0)
    torch.testing.assert_close(loss, (target - e_c).square().sum() / len(z_t))


def test_esd_follows_fresh_trajectories(model, data):
    batches = ConceptBatches(data, model, 64, 1, (1, "test"), trajectory_steps=5)
    z_t, t = next(batches(0)).trajectory_states(model, 3.0)
    assert set(t.tolist()) == {800, 600, 400, 200, 0}
    again, _ = next(batches(0)).trajectory_states(model, 3.0)
    other, _ = next(batches(1)).trajectory_states(model, 3.0)
    assert torch.equal(z_t, again) and not torch.isclose(z_t, other).all(), "a step's states depend on its number"
    batch = next(batches(0))
    noise = torch.randn(z_t.shape, generator=batch.generator)
    assert torch.equal(z_t[t == 800], noise[t == 800])
    guided = Guided(model, batch.c_a, batch.c_null, 3.0)
    with torch.no_grad():
        whole = ddim_step(guided, noise, 800, 600)
    torch.testing.assert_close(z_t[t == 600], whole[t == 600], rtol=1e-4, atol=1e-5)


def test_anchored_holds_the_outputs_and_its_twin_the_noise(model, batch):
    held = begun("anchored", model).losses(model, batch)
    twin = begun("anchored", model, retained="noise").losses(model, batch)
    assert held["retain"].detach() == 0, "at the start the outputs are the original's"
    assert twin["retain"].detach() > 0


def test_a_generator_step_leaves_the_discriminator(model, batch):
    for leak, changes in ((False, False), (True, True)):
        method = begun("doco", model, warmup=0, leak=leak)
        flat(method, model, batch)
        assert any(p.grad is not None for p in method._adversary.net.parameters()) == changes
        before = copy.deepcopy(method._adversary.net.state_dict())
        method.after_step()
        assert any(not torch.equal(v, before[k]) for k, v in method._adversary.net.state_dict().items())


def test_what_a_discriminator_tells_right_is_logged_by_quarter_of_t():
    right = torch.tensor([1.0, 0.5, 0.0, 0.25])
    shares = _discriminator.share_by_quarter(right, torch.tensor([0, 249, 999, 500]), 1000)
    assert shares == {"discriminator_1": 0.75, "discriminator_3": 0.25, "discriminator_4": 0.0}
    net = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.ones_(net.weight)
    torch.nn.init.zeros_(net.bias)
    below, above = -torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    above[1, 0, 0] = -1  # half of the target's patches look like the anchor's
    adversary = _discriminator.Adversary(net, 1e-3, leak=False)
    adversary.step(below, above, torch.tensor([0, 900]), 1000)
    assert adversary.told == {"discriminator_1": 1.0, "discriminator_4": 0.75}


@pytest.mark.parametrize("leak", [False, True])
def test_doco_trains_its_discriminator_alone_while_warming_up(model, data, tmp_path, monkeypatch, leak):
    """No gradient reaches the model, and none leaks into the discriminator."""
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    start = model.weights().detach().clone()
    batches = ConceptBatches(data, model, 4, 1, (1, "test"))
    method = begun("doco", model, warmup=10, leak=leak)
    with Scratch("doco", []) as scratch:
        history = train(model, method, batches, training(steps=5), scratch, "doco")
    assert torch.equal(start, model.weights()) and not any("loss_adversary" in line for line in history)
    assert any(key.startswith("discriminator_") for line in history for key in line), "what it tells right is logged"
    assert model.nfe == {"forward": 2 * 5 * 4, "backward": 0}
    apart = begun("doco", model, warmup=10)
    for step in range(5):
        (batch,) = batches(step)
        assert not apart.losses(model, batch)
        apart.after_step()
    alone = apart._adversary.net.state_dict()
    assert all(torch.equal(value, alone[name]) for name, value in method._adversary.net.state_dict().items())


def test_a_method_with_a_second_optimiser_resumes_exactly(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    settings, ends = training(steps=8), []
    for stop in (None, 5):
        model = class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)
        batches = ConceptBatches(data, model, 4, 1, (1, "test"))

        def broken(step, batches=batches, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            return batches(step)

        try:
            with Scratch(f"doco-{stop}", []) as scratch:
                train(model, begun("doco", model, warmup=2), broken, settings, scratch, "doco")
        except KeyboardInterrupt:
            model = class_conditional.create(UNET, SCHEDULER, classes=3, seed=1)
            with Scratch(f"doco-{stop}", []) as scratch:
                train(model, begun("doco", model, warmup=2), batches, settings, scratch, "doco")
        ends.append(model.weights().detach())
    assert torch.equal(*ends)


def test_uce_is_the_least_squares_solution():
    generator = torch.Generator().manual_seed(0)
    w_0, c, g, kept = (torch.randn(*shape, generator=generator).double() for shape in ((7, 5), (2, 5), (2, 5), (9, 5)))
    a, b, lam = 1.5, 0.7, 0.3
    solution = uce.solve_edit(w_0, c, g, kept, a, b, lam)
    left = torch.cat([a**0.5 * c, b**0.5 * kept, lam**0.5 * torch.eye(5).double()])
    right = torch.cat([a**0.5 * g @ w_0.T, b**0.5 * kept @ w_0.T, lam**0.5 * w_0.T])
    torch.testing.assert_close(solution, torch.linalg.lstsq(left, right).solution.T)
    torch.testing.assert_close(uce.solve_edit(w_0, c, c, kept, a, b, lam), w_0, msg="a target that is its anchor")


# Which weights matter


def gradient(model, loss) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.net.parameters()))])


@pytest.mark.parametrize("clip", [None, 0.5])
def test_saliency_is_the_summed_gradient_of_the_guided_loss(model, batch, clip):
    """Through both predictions; each batch's gradient is clipped by itself."""
    a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
    null = model.predict(a_t, batch.t, batch.c_null.expand_as(batch.c_a))
    guided = null + 3.0 * (model.predict(a_t, batch.t, batch.c_a) - null)
    wanted = gradient(model, (batch.eps - guided).square().sum() / len(a_t))
    if clip is not None:
        wanted = wanted * clip / wanted.norm()
    measured = importance.saliency(model, iter([batch, batch]), 3.0, clip)
    torch.testing.assert_close(measured, 2 * wanted.abs(), rtol=1e-4, atol=1e-6 * float(wanted.norm()))


def test_the_fisher_information_squares_the_sum_over_all_time_steps(model, batch):
    """One noise a time step; a share of the steps stands for all."""
    x, c = batch.x[:2], batch.c_x[:2]
    total = len(model.schedule)
    generator = torch.Generator().manual_seed(0)
    wanted = 0
    for image, condition in zip(x, c, strict=True):
        t = torch.arange(total)
        eps = torch.cat([torch.randn((100, *image.shape), generator=generator) for _ in range(total // 100)])
        x_t = model.schedule.add_noise(image.expand(total, *image.shape), eps, t)
        loss = (eps - model.predict(x_t, t, condition.expand(total, *condition.shape))).square().sum()
        wanted = wanted + gradient(model, loss).square() / 2
    measured = importance.fisher(model, x, c, None, torch.Generator().manual_seed(0), 100)
    torch.testing.assert_close(measured, wanted, rtol=1e-3, atol=1e-4 * float(wanted.max()))
    few = importance.fisher(model, x, c, 100, torch.Generator().manual_seed(0), 100)
    assert 0.2 < float(few.median() / measured.median()) < 20


# Text


def test_nothing_is_learnt_from_the_first_token():
    """The outputs stay; gradients of keys and values lose the first token's part alone."""
    net = torch.nn.ModuleDict(
        {"attn2": torch.nn.ModuleDict({"to_k": torch.nn.Linear(3, 2), "to_q": torch.nn.Linear(3, 2)})}
    )
    keys, queries = net["attn2"]["to_k"], net["attn2"]["to_q"]
    states = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    plain = keys(states)
    with first_token_detached(net):
        detached, asked = keys(states), queries(states)
    assert torch.equal(plain, detached)
    assert torch.equal(keys(states), plain) and not keys._forward_hooks, "only while it lasts"
    detached.sum().backward()
    asked.sum().backward()
    torch.testing.assert_close(keys.weight.grad[0], states[:, 1:].sum((0, 1)))
    torch.testing.assert_close(queries.weight.grad[0], states.sum((0, 1)))


@pytest.mark.parametrize("norm, size, patches", [("group", 64, 4), ("batch", 64, 3)])
def test_discriminators(norm, size, patches):
    net = _discriminator.create((4, size, size), (64, 128, 256, 512), norm, 0, "cpu")
    assert net(torch.zeros(2, 4, size, size)).shape == (2, 1, patches, patches)
    with pytest.raises(UserError, match="4 layers leave no patch of 8 x 8 with norm"):
        _discriminator.create((4, 8, 8), (8, 8, 8, 8), norm, 0, "cpu")
    if norm == "batch":
        assert sum(p.numel() for p in net.parameters()) == 2_767_553, "as many as the public code's"
