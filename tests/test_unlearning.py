"""The one driver of unlearning: what it calls, what it lets train, and how many steps it says were taken."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from conftest import SCHEDULER, TEXT_MODEL, TEXT_SCHEDULER, UNET, training

from palinode import methods
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.io import read_csv, read_json
from palinode.core.scratch import Scratch
from palinode.methods import Method
from palinode.models import text_to_image, unconditional
from palinode.models.guidance import FixedCondition
from palinode.training.batches import ImageBatches
from palinode.training.unlearning import Job, steps_taken, unlearn, write_training

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
KEY = (1, "task", "unlearn", "0")


@dataclass
class Teacher(Method):
    """Stay where the original model is: a method with a state that `begin` sets up."""

    original: object = field(init=False, default=None)
    statistics: dict = field(init=False, default_factory=dict)
    begun: int = field(init=False, default=0)

    def begin(self, model, statistics):
        self.original = model.frozen()
        self.statistics = statistics
        self.begun += 1

    def losses(self, model, batch):
        target = self.original.predict(batch.a, batch.t)
        return {"forget": (model.predict(batch.a, batch.t) + target).square().sum()}

    def combine(self, grads):
        return grads["forget"], {}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    with Scratch("test", []) as place:
        yield place


@pytest.fixture(scope="module")
def words(corpus):
    return corpus.words


def job(model, **changes) -> Job:
    def batches() -> ImageBatches:
        return ImageBatches(IMAGES[:16], IMAGES[16:17], len(model.schedule), 4, 1, "cpu", KEY)

    return Job(**({"model": model, "seen": model, "batches": batches, "key": KEY, "statistics": {}} | changes))


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.net.named_parameters()}


def changed(model, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in weights(model).items() if not torch.equal(parameter, before[name])}


def test_a_stateful_method_is_always_begun(model, scratch):
    method = Teacher()
    statistics = {"saliency": torch.ones(3)}
    before = weights(model)
    history = unlearn(job(model, statistics=statistics), method, training(steps=3), "all", scratch, "test")
    assert method.begun == 1
    assert method.statistics == {"seed": seeds.derive(*KEY, "method"), **statistics}
    assert [line["step"] for line in history] == [0, 1, 2]
    assert changed(model, before)
    assert not changed(method.original, before), "the teacher is the original"


def test_a_method_sees_the_model_as_its_task_shows_it(scratch, words):
    """A method for unconditional models on a text-to-image one: it sees a fixed condition."""
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, words, seed=1)
    latents = np.zeros((4, 8, 8, 4), np.uint8)
    with torch.no_grad():
        seen = FixedCondition(model, model.condition(["a cat"]))
    method = Teacher()

    def batches() -> ImageBatches:
        return ImageBatches(latents, latents, len(model.schedule), 2, 1, "cpu", KEY)

    before = weights(model)
    chosen = job(model, seen=seen, batches=batches)
    unlearn(chosen, method, training(steps=1), "cross-attention-kv", scratch, "test")
    assert method.begun == 1
    assert changed(model, before)
    assert all("attn2.to_k." in name or "attn2.to_v." in name for name in changed(model, before))
    assert model.nfe["forward"] == 4


def test_what_does_not_exist_cannot_train(model, scratch):
    with pytest.raises(UserError, match="trainable: 'cross-attention' matches no parameter"):
        unlearn(job(model), Teacher(), training(steps=1), "cross-attention", scratch, "test")


def test_a_closed_form_takes_no_step(scratch, words):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, words, seed=1)
    prompts = {"target": ["cat"], "anchor": ["dog"], "kept": ["pig", "noto"]}

    def refuse():
        raise AssertionError("a closed form draws no batches")

    before = weights(model)
    chosen = job(model, batches=refuse, edit_prompts=lambda: prompts)
    history = unlearn(chosen, methods.load("uce"), training(steps=5), "all", scratch, "test")
    assert history == [{"step": 0}]
    assert steps_taken(history) == 0
    assert model.nfe == {"forward": 0, "backward": 0}
    edited = {name for name in before if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert changed(model, before) == edited


def test_pictures_are_drawn_on_the_way(scratch):
    model = unconditional.create(UNET, SCHEDULER, seed=1)
    shown = []
    unlearn(job(model, watch=shown.append), Teacher(), training(steps=4), "all", scratch, "test")
    assert shown == [1, 2, 3, 4]


def test_a_model_that_is_unlearned_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    ends = []
    for _ in range(2):
        model = unconditional.create(UNET, SCHEDULER, seed=1)
        with Scratch("test", []) as scratch:
            unlearn(job(model), methods.load("siss", {"norm": 1.0}), training(steps=5), "all", scratch, "test")
        ends.append(weights(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    ("history", "steps"),
    [
        ([], 0),
        ([{"step": 0}], 0),
        ([{"step": 0, "loss_retain": 1.0}], 1),
        ([{"step": 0, "loss_retain": 1.0}, {"step": 5, "loss_retain": 0.5}, {"step": 9, "loss_retain": 0.5}], 10),
        ([{"step": step, "prompt": prompt, "loss_forget": 1.0} for prompt in (0, 1) for step in (0, 4)], 10),
        ([{"step": 0, "prompt": 0}, {"step": 0, "prompt": 1}], 0),
    ],
)
def test_steps_are_counted_over_all_prompts(history, steps):
    assert steps_taken(history) == steps


def test_a_cell_of_training_leaves_its_log_and_its_cost(tmp_path):
    history = [{"step": 0, "loss_retain": 1.0}, {"step": 3, "loss_retain": 0.25}]
    write_training(tmp_path / "training", history, {"forward": 8, "backward": 6})
    assert read_json(tmp_path / "training/cost.json") == {"forward": 8, "backward": 6, "steps": 4}
    assert [line["loss_retain"] for line in read_csv(tmp_path / "training/training.csv")] == ["1", "0.25"]
