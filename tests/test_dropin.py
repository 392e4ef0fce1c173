"""A method of one's own is one file: every sort of method, on every kind of task that offers what it needs."""

import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
from project import PARAMETERS, ROOT, Project, write_data
from tiny import run, untrained, write_plan

from palinode import methods, params
from palinode.core.io import read_csv, read_json
from palinode.models import loading, unconditional
from palinode.pipeline import needs

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

__all__ = ["untrained"]  # a fixture
HEAD = '''"""A method that a user brings."""

from dataclasses import dataclass

import torch

from palinode.methods import Method


def error(prediction, target):
    return (prediction - target).square().sum() / len(target)

'''
STATELESS = '''
@dataclass
class Stateless(Method):
    """Down on the retain loss, up on the forget loss."""

    share: float = 0.1

    def losses(self, model, batch):
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        return {
            "retain": error(model.predict(x_t, batch.t, batch.c_x), batch.eps),
            "forget": error(model.predict(a_t, batch.t, batch.c_a), batch.eps),
        }

    def combine(self, grads):
        return grads["retain"] - self.share * grads["forget"], {}
'''
# `begin` is where a teacher is frozen; the state goes through checkpoints.
STATEFUL = '''
@dataclass
class Stateful(Method):
    """Predict noise for what is forgotten, and what the original predicts for what is kept; count the steps."""

    needs = frozenset({needs})

    def begin(self, model, statistics):
        self.original = model.frozen()
        self.generator = torch.Generator().manual_seed(statistics["seed"])
        self.steps = 0

    def losses(self, model, batch):
        x_t = model.schedule.add_noise(batch.x, batch.eps, batch.t)
        with torch.no_grad():
            kept = self.original.predict(x_t, batch.t{condition})
        return {{"retain": error(model.predict(x_t, batch.t{condition}), kept + batch.eps)}}

    def combine(self, grads):
        return grads["retain"], {{"counted": float(self.steps)}}

    def after_step(self):
        self.steps += 1

    def state_dict(self):
        return {{"steps": self.steps}}

    def load_state_dict(self, state):
        self.steps = state["steps"]
'''
CLOSED_FORM = '''
@dataclass
class ClosedForm(Method):
    """Halve the keys and values of the cross-attention, for a target that has an anchor."""

    closed_form = True
    needs = frozenset({"text"})

    @torch.no_grad()
    def edit(self, model, names):
        assert model.last_states(names["target"]).shape == model.last_states(names["anchor"]).shape
        assert names["kept"]
        for name, weight in model.net.named_parameters():
            if "attn2.to_k" in name or "attn2.to_v" in name:
                weight.mul_(0.5)
'''
ANCHOR = '''
@dataclass
class Anchor(Method):
    """Predict for the target what the model predicts for the anchor, on the anchor's pictures."""

    needs = frozenset({"anchor"})

    def losses(self, model, batch):
        anchor_t = model.schedule.add_noise(batch.anchor, batch.eps, batch.t)
        with torch.no_grad():
            teacher = model.predict(anchor_t, batch.t, batch.c_anchor)
        null = model.predict(anchor_t, batch.t, batch.c_null.expand_as(batch.c_anchor))
        forget = error(model.predict(anchor_t, batch.t, batch.c_a), teacher + 0.1 * batch.eps)
        return {"forget": forget, "anchor": error(null, batch.eps)}

    def combine(self, grads):
        return grads["forget"] + grads["anchor"], {}
'''
TRAJECTORY = '''
@dataclass
class Trajectory(Method):
    """Predict nothing along the original model's own sampling of the target."""

    needs = frozenset({"trajectory"})

    def losses(self, model, batch):
        z_t, t = batch.trajectory_states(model, 3.0)
        return {"forget": error(model.predict(z_t, t, batch.c_a), torch.zeros_like(z_t))}

    def combine(self, grads):
        return grads["forget"], {}
'''
STATISTICS = '''
@dataclass
class Statistics(Method):
    """Move only what matters to the target, weighed by what matters to the rest."""

    needs = frozenset({"saliency", "fisher"})

    def begin(self, model, statistics):
        self.mask = model.trained(statistics["saliency"]) > 0
        self.fisher = model.trained(statistics["fisher"])
        self.start = model.weights().detach().clone()

    def losses(self, model, batch):
        a_t = model.schedule.add_noise(batch.a, batch.eps, batch.t)
        penalty = (self.fisher * (model.weights() - self.start).square()).sum()
        return {"forget": error(model.predict(a_t, batch.t, batch.c_a), -batch.eps), "penalty": penalty}

    def combine(self, grads):
        return grads["forget"] * self.mask + grads["penalty"], {}
'''
FILES = {
    "dropped_stateless": STATELESS,
    "dropped_stateful": STATEFUL.format(needs="()", condition=", batch.c_x"),
    "dropped_unconditional": STATEFUL.format(needs='{"unconditional"}', condition=""),
    "dropped_closed_form": CLOSED_FORM,
    "dropped_anchor": ANCHOR,
    "dropped_trajectory": TRAJECTORY,
    "dropped_statistics": STATISTICS,
}
LOGGED = {
    "stateless": {"loss_retain", "loss_forget", "norm_retain", "norm_forget"},
    "stateful": {"loss_retain", "norm_retain", "counted"},
    "unconditional": {"loss_retain", "norm_retain", "counted"},
    "closed-form": set(),
    "anchor": {"loss_forget", "loss_anchor", "norm_forget", "norm_anchor"},
    "trajectory": {"loss_forget", "norm_forget"},
    "statistics": {"loss_forget", "loss_penalty", "norm_forget", "norm_penalty"},
}
ROWS = {name.removeprefix("dropped_").replace("_", "-"): {"method": name} for name in FILES}
OFFERED = {  # kind of task -> the sorts of method that run there
    "images": ["stateless", "stateful", "unconditional"],
    "text": ["stateless", "stateful", "closed-form", "anchor", "trajectory", "statistics"],
    "class": ["stateless", "stateful", "anchor", "trajectory", "statistics"],
    "prompts": ["stateless", "stateful", "unconditional", "closed-form", "anchor", "trajectory"],
}
STEPS = 2


@pytest.fixture
def dropped(tmp_path, monkeypatch):
    """The files, beside the package's own methods for this test alone."""
    folder = tmp_path / "methods"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(HEAD + text)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    yield
    for name in FILES:
        sys.modules.pop(f"palinode.methods.{name}", None)
        vars(methods).pop(name, None)


@pytest.fixture
def work(tmp_path, monkeypatch, untrained):
    """A working folder with untrained conditional models in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    tiny.make_folder(folder, monkeypatch)
    shutil.copytree(untrained, folder / "models")
    return folder


def check_history(cell: Path, row: str, steps: int = STEPS) -> None:
    """What was logged, and that nothing is missing from it."""
    history = read_csv(cell / "training/training.csv")
    assert set(history[0]) - {"step", "prompt"} == LOGGED[row], row
    assert len(history) == (steps if LOGGED[row] else 1), row
    if "counted" in LOGGED[row]:
        assert [float(line["counted"]) for line in history] == list(range(steps)), row
    assert read_json(cell / "training/cost.json")["steps"] == (steps if LOGGED[row] else 0), row


def list_refused(plans: Path, rows: list[str]) -> list[str]:
    """The rows that the plan calls absent."""
    return [row for row in rows if read_json(plans / f"{row}.json")["settings"]["absent"]]


def test_methods_of_ones_own_forget_images(tmp_path, dropped):
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("src", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    write_data(folder / "data")
    project = Project(folder)
    project.write_parameters(PARAMETERS)
    project.change("rows", PARAMETERS["rows"] | {row: tiny.ROW | block for row, block in ROWS.items()})
    project.change("images/rows", OFFERED["images"])
    project.begin()
    assert not list_refused(folder / "out/plan/unlearn-images/tiny", OFFERED["images"])
    before = unconditional.load(folder / "models/tiny/model").weights()
    for row in OFFERED["images"]:
        project.call("unlearn", "images", "tiny", "0", row, "0")
        cell = folder / "out/cells/tiny/0" / row / "0"
        check_history(cell, row)
        assert not torch.equal(unconditional.load(cell / "model").weights(), before), row


@pytest.mark.parametrize(
    "kind, task",
    [
        ("text", {"base": "mini", "target": "cat", "anchor": "dog"}),
        ("class", {"base": "two", "target": 0, "anchor": 1}),
    ],
)
def test_methods_of_ones_own_forget_concepts(work, dropped, kind, task):
    write_plan(tiny.concept_parameters({"own": task}, {row: ROWS[row] for row in OFFERED[kind]}))
    assert not list_refused(work / "out/plan/unlearn-concept/own", OFFERED[kind])
    run("bind")
    run("prepare", "concept", "own", "0")
    run("importance", "concept", "own", "0")
    before = loading.load(work / "out/bases/own/base").weights()
    for row in OFFERED[kind]:
        run("unlearn", "concept", "own", "0", row, "0")
        cell = work / "out/cells/own/0" / row / "0"
        check_history(cell, row)
        assert not torch.equal(loading.load(cell / "model").weights(), before), row


@pytest.mark.slow
def test_methods_of_ones_own_forget_prompts(work, dropped, monkeypatch):
    tiny.let_prompts_count(monkeypatch)
    tiny.place_scores(work / "models", {"threshold": 1.0})
    write_plan(tiny.prompt_parameters(ROWS, OFFERED["prompts"]))
    assert not list_refused(work / "out/plan/unlearn-prompts/few", OFFERED["prompts"])
    run("bind")
    run("prepare", "prompts", "few")
    for row in OFFERED["prompts"]:
        run("unlearn", "prompts", "few", "0", row, "0")
        cell = work / "out/cells/few/0" / row / "0"
        check_history(cell, row, steps=tiny.PROMPT_TASK["unlearn"]["steps"])
        assert (cell / "snapshots/snapshots.npz").exists(), row


@pytest.mark.parametrize("kind", ["images", "concept", "prompts"])
def test_what_a_kind_does_not_offer_is_refused_with_the_reason(dropped, kind):
    """Every sort of method either runs on a kind of task, above, or has the reason for which `plan` refuses it."""
    made = tiny.prompt_parameters(ROWS, list(ROWS))
    concepts = {"own": {"base": "mini", "target": "cat", "anchor": "dog"}}
    made["concept_tasks"] = tiny.concept_parameters(concepts, ROWS)["concept_tasks"]
    made["base_models"] |= {"tiny": PARAMETERS["base_models"]["tiny"]}
    task = {"images": "tiny", "concept": "own", "prompts": "few"}[kind]
    offered = OFFERED["text" if kind == "concept" else kind]
    for row in ROWS:
        reason = needs.missing_need(params.Params.model_validate(made), kind, task, row)
        assert (reason is None) == (row in offered), (kind, row)
        if reason is not None:
            assert reason.startswith(f"{row} needs ") and reason.endswith(f", which {task} does not offer")
