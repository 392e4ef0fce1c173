"""Attacks on unlearned concepts, at tiny size: what they train, what they leave alone, what they write."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from test_concept_stages import ROWS, TASKS
from tiny import run, untrained, write_plan

from palinode import params
from palinode.attacks import attack as attacks
from palinode.attacks.outcome import measure_return
from palinode.classifiers import concept_classifiers
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.io import read_array, read_json
from palinode.core.scratch import Scratch
from palinode.core.work import read_plan
from palinode.data.prompt_sets import TRAINING, PromptSets
from palinode.models import loading
from palinode.models.prompt_tuning import FreeClass, FreePrefix
from palinode.params.stage_settings import AttackConcept
from palinode.pipeline import planning
from palinode.training import concept_batches
from palinode.training.denoising import Denoise
from palinode.training.loop import Trained, train

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

__all__ = ["untrained"]  # a fixture
ATTACKED = {"no-cat": "uce", "no-zero": "sa"}  # task -> its row
BUDGETS = {
    "relearn": {"steps": [1, 2, 4], "batch": 2},
    "prompt-tuning": {"steps": [4], "batch": 2, "vectors": 2},
}


def key_of(attack: str) -> str:
    """An attack's block in the parameters."""
    return attack.replace("-", "_")


def parameters(task: str, **changes) -> dict:
    """A tiny task with its attacks enabled; changes: of the block `attacks`."""
    row = ATTACKED[task]
    made = tiny.concept_parameters({task: TASKS[task]}, {row: ROWS[row]})
    budgets = {key_of(attack): budget for attack, budget in BUDGETS.items()}
    made["attacks"] = {"tasks": [task], "rows": [row], "attacks": list(BUDGETS)} | budgets | changes
    return made


@pytest.fixture
def work(tmp_path, monkeypatch, untrained):
    """A working folder with untrained models in it."""
    folder = tiny.make_folder(tmp_path, monkeypatch)
    shutil.copytree(untrained, folder / "models")
    return folder


def prepare(task: str, **changes) -> None:
    write_plan(parameters(task, **changes))
    run("bind")
    run("prepare", "concept", task, "0")
    run("importance", "concept", task, "0")


def load_base(task: str):
    return loading.load(Path("out/bases") / task / "base")


def load_data(task: str):
    return concept_batches.load(Path("out/tasks") / task / "0/training")


def read_settings(task: str, attack: str) -> AttackConcept:
    return read_plan(Path("out/plan/attack-concept") / task / f"0/{attack}.json", AttackConcept)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("task", ATTACKED)
def test_a_cell_is_attacked_and_judged(work, task):
    row = ATTACKED[task]
    prepare(task)
    run("unlearn", "concept", task, "0", row, "0")
    run("sample", "concept", task, "0", row, "0")
    cell = work / "out/cells" / task / "0" / row / "0"
    before = {path: path.read_bytes() for path in (cell / "model").rglob("*.safetensors")}
    for attack, budget in BUDGETS.items():
        run("attack", "concept", task, "0", row, "0", attack)
        folder = cell / "attacks" / attack
        name = key_of(attack)
        metrics = read_json(folder / "metrics.json")
        assert list(metrics) == [*(f"target_{name}_{step}" for step in (0, *budget["steps"])), f"{name}_steps"]
        assert (folder / "training.csv").read_text().startswith("step,loss_objective")
        assert (folder / "contact.png").exists() and (folder / "replicates.npz").exists()
        written = read_json(folder / "budget.json")
        assert written["pictures"] == 6 and written.items() >= budget.items()
        assert ("vectors" in written) == (attack == "prompt-tuning")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list((work / "scratch").iterdir())
    sets = PromptSets.from_json(read_json(work / "out/tasks" / task / "0/prompts/prompt_sets.json"))
    prompts = sets.forget[TRAINING]
    kind = "text" if task == "no-cat" else "class"
    judge = concept_classifiers.load(work / "out/bases" / task / "judge", kind, TASKS[task]["target"])
    own = read_array(cell / "samples/samples.npy")[: len(prompts)]
    share = read_json(cell / "attacks/relearn/metrics.json")["target_relearn_0"]["value"]
    assert share == 1 - judge(own, prompts).missed.mean(), "before the first step it is the cell as it was sampled"


def test_a_model_that_does_not_exist_is_absent(work):
    prepare("no-zero")
    run("attack", "concept", "no-zero", "0", "reference", "oracle", "relearn")
    note = work / "out/cells/no-zero/0/oracle/0/attacks/relearn/absent.txt"
    assert "no model was trained without 0" in note.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("task", ATTACKED)
@pytest.mark.parametrize("attack", BUDGETS)
def test_the_loss_falls_and_only_what_is_attacked_moves(work, task, attack):
    prepare(task, **{key_of(attack): {"steps": [40], "lr": 1e-2, "batch": 4}})
    model = load_base(task)
    settings = read_settings(task, attack)
    weights = [p.detach().clone() for p in model.net.parameters()]
    attacked, net = attacks._prepare(model, settings, seeds.generator(1, task, attack, "0", "init"))
    count = sum(p.numel() for p in net.parameters())
    batches = attacks.TargetBatches(load_data(task), attacked, 32, ("eval",))
    denoise = Denoise(attacked)

    def measure_loss() -> float:
        with torch.no_grad():
            return sum(float(denoise.losses(None, next(batches(step)))["objective"]) for step in range(2))

    first = measure_loss()
    with Scratch("attack", []) as scratch:
        train(Trained(net, attacked.nfe), denoise, batches, settings.training, scratch, "test")
    assert measure_loss() < first
    moved = [not torch.equal(a, b) for a, b in zip(weights, model.net.parameters(), strict=True)]
    assert any(moved) == (attack == "relearn")
    assert (count == sum(map(torch.numel, weights))) == (attack == "relearn")


def test_free_embeddings_that_copy_words_change_nothing(untrained):
    """A prefix of the embeddings of "a picture of" is the prompt that begins so."""
    model = loading.load(untrained / "mini/model")
    attacked = FreePrefix(model, 3, seeds.generator("test"))
    plain = ["a cat"]
    longer = ["a picture of a cat"]
    with torch.no_grad():
        attacked.vectors.copy_(model.text_encoder.get_input_embeddings()(model.prompt_ids(longer)[0, 1:4]))
        assert torch.equal(attacked.condition(plain), model.condition(longer))
        assert torch.equal(attacked.condition([""]), model.condition([""])), "guidance starts from the null prompt"
        assert torch.equal(model.condition(plain), model.condition(plain))


def test_a_free_vector_stands_for_one_class_alone(untrained):
    model = loading.load(untrained / "two/model")
    attacked = FreeClass(model, 0)
    y = torch.tensor([0, 1, 10])
    t = torch.tensor([5, 5, 5])
    x = torch.randn(3, *model.shape, generator=seeds.generator("test"))
    with torch.no_grad():
        before = model.predict(x, t, y)
        assert torch.equal(attacked.predict(x, t, y), before)
        attacked.vectors.zero_()
        changed = (attacked.predict(x, t, y) != before).flatten(1).any(1)
        assert changed.tolist() == [True, False, False] and torch.equal(model.predict(x, t, y), before)


def test_a_prefix_that_does_not_fit_is_refused(work):
    prepare("no-cat", prompt_tuning={"steps": [1], "vectors": 20})
    with pytest.raises(UserError, match="attacks.prompt_tuning.vectors: no room for 20 before the prompt '"):
        run("attack", "concept", "no-cat", "0", "reference", "base", "prompt-tuning")
    assert not (work / "out/cells/no-cat/0/base/0/attacks/prompt-tuning").exists()


@pytest.mark.parametrize("attack", BUDGETS)
def test_a_killed_attack_gives_the_same_bytes(work, attack, monkeypatch):
    prepare("no-zero", **{key_of(attack): {"steps": [2, 20, 40], "batch": 2}})
    stage = ("attack", "concept", "no-zero", "0", "reference", "base", attack)
    run(*stage)
    folder = work / "out/cells/no-zero/0/base/0/attacks" / attack
    whole = contents(folder)
    batches = attacks.TargetBatches.__call__
    seen: list[int] = []

    def take_or_die(self, step):
        seen.append(step)
        if step == 30 and seen.count(30) == 1:
            raise KeyboardInterrupt
        return batches(self, step)

    monkeypatch.setattr(attacks.TargetBatches, "__call__", take_or_die)
    folder.rename(work / "kept")
    with pytest.raises(KeyboardInterrupt):
        run(*stage)
    assert not folder.exists()
    run(*stage)
    assert contents(folder) == whole
    assert seen.count(10) == 1 and len(seen) <= 41 + 40 // 12, "at most a twelfth is done again"


def test_an_autoencoder_of_its_own_gets_latents_of_its_own(work):
    prepare("no-cat")
    model = load_base("no-cat")
    data = load_data("no-cat")
    other = load_base("no-cat")
    other.vae.register_to_config(scaling_factor=2 * model.vae.config.scaling_factor)
    with torch.no_grad():
        again = attacks.translate(data.forget, model, other)
        images = model.decode(data.forget).clamp(-1, 1)
        assert torch.allclose(again, other.encode(images), atol=1e-5) and again.shape == data.forget.shape


@pytest.mark.parametrize(
    "shares, expected",
    [
        ((0.1, 0.2, 0.9), (10, 10, 10)),
        ((1.0, 1.0, 1.0), (0, 0, 0)),
        ((0.0, 0.5, 0.9), (5, 5, 10)),
        ((0.0, 0.2, 0.5), (10, 10, np.inf)),
    ],
)
def test_the_first_step_at_which_half_is_back(shares, expected):
    seen = [np.arange(100) < 100 * share for share in shares]
    metrics = measure_return("relearn", [0, 5, 10], seen, 200)
    first = metrics["relearn_steps"]
    assert (first.value, first.lo, first.hi) == expected
    assert [metrics[f"target_relearn_{step}"].value for step in (0, 5, 10)] == list(shares)


def test_what_never_returns_has_a_reason():
    first = measure_return("prompt-tuning", [0, 8], [np.zeros(9, bool)] * 2, 20)["prompt_tuning_steps"]
    assert first.value is None and first.reason == "the target is not back within 8 steps"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tasks": ["no-dog"]}, "attacks.tasks: 'no-dog' is not in the list `concept.tasks`"),
        ({"rows": ["naive"]}, "attacks.rows: 'naive' is not in the list `concept.rows`"),
        ({"attacks": ["hammer"]}, "Input should be 'relearn' or 'prompt-tuning'"),
        ({"relearn": {"steps": []}}, "attacks.relearn.steps"),
        ({"relearn": {"steps": [20, 10]}}, r"attacks.relearn.steps: must ascend, and not be empty \(got \[20, 10\]\)"),
        ({"relearn": {"steps": [7, 100]}}, "7 is not a multiple of 5, a twentieth of the last"),
        ({"prompt_tuning": {"lr": "fast"}}, "attacks.prompt_tuning.lr"),
        ({"relearn": {"vectors": 3}}, "attacks.relearn.vectors: unknown parameter"),
    ],
)
def test_wrong_parameters_are_named(tmp_path, changes, words):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(parameters("no-zero", **changes)))
    with pytest.raises(UserError, match=words) as raised:
        params.load(file)
    assert "\n" not in str(raised.value)


def test_nothing_enabled_is_nothing_planned():
    def list_paths(**changes) -> set[str]:
        made = params.Params.model_validate(parameters("no-zero", **changes))
        return {plan.path for plan in planning.list_plans(made)}

    off = list_paths(tasks=[])
    added = {f"attack-concept/no-zero/0/{attack}" for attack in BUDGETS}
    assert list_paths() - off == added
    assert list_paths(attacks=["relearn"]) - off == {"attack-concept/no-zero/0/relearn"}


def test_every_budget_is_read_back_as_it_was_written():
    """A budget of one attack is not taken for one of another."""
    for plan in planning.list_plans(params.Params.model_validate(parameters("no-zero"))):
        if plan.path.startswith("attack-concept/"):
            back = type(plan.settings).model_validate(plan.settings.model_dump(mode="json"))
            assert back == plan.settings and type(back.budget) is type(plan.settings.budget)
