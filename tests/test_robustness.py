"""Attacks on unlearned concepts, at tiny size: what they train, what they leave alone, what they write."""

from pathlib import Path

import numpy as np
import pytest
import test_concept_stages as stages
import torch
import yaml
from project import ROOT
from test_concept_stages import parameters, prepare, run

from palinode import params
from palinode.attacks import attack
from palinode.attacks.outcome import returned
from palinode.classifiers import concept_classifiers
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.io import read_array, read_json
from palinode.core.scratch import Scratch
from palinode.data.prompt_sets import PromptSets
from palinode.models import loading
from palinode.pipeline import planning
from palinode.pipeline.plan_files import read
from palinode.training import concept_batches
from palinode.training.denoising import Denoise
from palinode.training.loop import Trained, train

work = stages.work  # the fixture
TASKS = {"no-cat": "uce", "no-zero": "sa"}
BUDGET = {"relearn": {"steps": [1, 2, 4], "batch": 2}, "prefix": {"steps": [4], "batch": 2, "vectors": 2}}


def enabled(task: str, **changes) -> dict:
    """The parameters of a tiny task with its attacks enabled; no rows: base and oracle alone."""
    made = parameters([task], [TASKS[task]])
    made["robustness"] = {"tasks": [task], "rows": [TASKS[task]]} | BUDGET | changes
    return made


def attacked(task: str, attack: str):
    """(base model, what unlearning trained on, the attack's settings)."""
    return base(task), concept_batches.load(Path("out/data") / task / "training"), read(f"{attack}-{task}")


def base(task: str):
    return loading.load(Path("out/data") / task / "base")


@pytest.mark.parametrize("task", TASKS)
def test_a_cell_is_attacked_and_judged(work, task):
    row = TASKS[task]
    prepare([task], [row], enabled(task))
    run("unlearn_concept", task, row, "0")
    run("sample_concept", task, row, "0")
    model = (work / "out/cells" / task / row / "0/model").rglob("*.safetensors")
    before = {path: path.read_bytes() for path in model}
    for attack, budget in BUDGET.items():
        run("attack_concept", task, row, "0", attack)
        folder = work / "out/cells" / task / row / "0/robustness" / attack
        found = read_json(folder / "metrics.json")
        assert list(found) == [*(f"target_{attack}_{step}" for step in (0, *budget["steps"])), f"{attack}_steps"]
        assert (folder / "training.csv").read_text().startswith("step,loss_x") and (folder / "contact.png").exists()
        assert read_json(folder / "budget.json")["pictures"] == 6
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list((work / "scratch").iterdir())
    prompts = PromptSets.from_json(read_json(work / "out/data" / task / "prompt_sets.json")).forget["T0"]
    eyes = concept_classifiers.load(work / "out/data" / task / "judge", "text" if task == "no-cat" else "class",
                       stages.TASKS[task]["target"])  # fmt: skip
    own = read_array(work / "out/cells" / task / row / "0/samples/samples.npy")[: len(prompts)]
    share = read_json(folder.with_name("relearn") / "metrics.json")["target_relearn_0"]["value"]
    assert share == 1 - eyes(own, prompts).missed.mean(), "before the first step it is the cell as it was sampled"


def test_a_model_that_does_not_exist_is_absent(work):
    prepare(["no-zero"], ["sa"], enabled("no-zero"))
    run("attack_concept", "no-zero", "oracle", "0", "relearn")
    note = work / "out/cells/no-zero/oracle/0/robustness/relearn/absent.txt"
    assert "no model was trained without 0" in note.read_text()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("attack", BUDGET)
def test_the_loss_falls_and_only_what_is_attacked_moves(work, task, attack):
    steps = {"steps": [40], "lr": 1e-2, "batch": 4}
    prepare([task], [TASKS[task]], enabled(task, **{attack: steps}))
    model, data, settings = attacked(task, attack)
    weights, key = [p.detach().clone() for p in model.net.parameters()], (1, task, attack, "0")
    face, net = attack.prepared(attack, model, settings, seeds.generator(*key, "init"))
    count = sum(p.numel() for p in net.parameters())
    batches = attack.TargetBatches(data, face, 32, ("eval",))
    denoise = Denoise(face)

    def loss() -> float:
        with torch.no_grad():
            return sum(float(denoise.losses(None, next(batches(step)))["x"]) for step in range(2))

    first = loss()
    with Scratch("attack", []) as scratch:
        train(Trained(net, face.nfe), denoise, batches, settings.training, scratch, "test")
    assert loss() < first
    moved = [not torch.equal(a, b) for a, b in zip(weights, model.net.parameters(), strict=True)]
    assert any(moved) == (attack == "relearn")
    assert (count == sum(map(torch.numel, weights))) == (attack == "relearn")


def test_free_embeddings_that_copy_words_change_nothing(work):
    """A prefix of the embeddings of "a picture of" is the prompt that begins so; a class's own vector is the class."""
    prepare(["no-cat", "no-zero"], ["sa"])
    model, (plain, words) = base("no-cat"), (["a cat"], ["a picture of a cat"])
    face = attack.Prefixed(model, 3, seeds.generator("test"))
    longer = model.tokens(words)
    with torch.no_grad():
        face.vectors.copy_(model.text_encoder.get_input_embeddings()(longer[0, 1:4]))
        assert torch.equal(face.condition(plain), model.condition(words))
        assert torch.equal(face.condition([""]), model.condition([""])), "guidance starts from the empty prompt"
        assert torch.equal(model.condition(plain), model.condition(plain))
        model = base("no-zero")
        face, y, t = attack.Revectored(model, 0), torch.tensor([0, 1, 10]), torch.tensor([5, 5, 5])
        x = torch.randn(3, *model.shape, generator=seeds.generator("test"))
        before = model.predict(x, t, y)
        assert torch.equal(face.predict(x, t, y), before)
        face.vectors.zero_()
        changed = (face.predict(x, t, y) != before).flatten(1).any(1)
        assert changed.tolist() == [True, False, False] and torch.equal(model.predict(x, t, y), before)


def test_a_prefix_that_does_not_fit_is_refused(work):
    prepare(["no-cat"], ["uce"], enabled("no-cat", prefix={"steps": [1], "vectors": 20}))
    with pytest.raises(UserError, match="robustness.prefix.vectors: no room for 20 before the prompt '"):
        run("attack_concept", "no-cat", "base", "0", "prefix")
    assert not (work / "out/cells/no-cat/base/0/robustness").exists()


@pytest.mark.parametrize("attack", BUDGET)
def test_a_killed_attack_gives_the_same_bytes(work, attack, monkeypatch):
    prepare(["no-zero"], ["sa"], enabled("no-zero", **{attack: {"steps": [2, 20, 40], "batch": 2}}))
    run("attack_concept", "no-zero", "base", "0", attack)
    folder = work / "out/cells/no-zero/base/0/robustness"
    whole = {path.name: path.read_bytes() for path in (folder / attack).iterdir()}
    batches, seen = attack.TargetBatches.__call__, []

    def dying(self, step):
        seen.append(step)
        if step == 30 and seen.count(30) == 1:
            raise KeyboardInterrupt
        return batches(self, step)

    monkeypatch.setattr(attack.TargetBatches, "__call__", dying)
    (folder / attack).rename(work / "kept")
    with pytest.raises(KeyboardInterrupt):
        run("attack_concept", "no-zero", "base", "0", attack)
    assert not (folder / attack).exists()
    run("attack_concept", "no-zero", "base", "0", attack)
    assert {path.name: path.read_bytes() for path in (folder / attack).iterdir()} == whole
    assert seen.count(10) == 1 and len(seen) <= 41 + 40 // 12, "at most a twelfth is done again"


def test_an_autoencoder_of_its_own_gets_latents_of_its_own(work):
    prepare(["no-cat"], ["uce"], enabled("no-cat"))
    model, data, _ = attacked("no-cat", "relearn")
    other = base("no-cat")
    other.vae.register_to_config(scaling_factor=2 * model.vae.config.scaling_factor)
    with torch.no_grad():
        again, images = attack.translated(data.a, model, other), model.decode(data.a).clamp(-1, 1)
        assert torch.allclose(again, other.encode(images), atol=1e-5) and again.shape == data.a.shape


@pytest.mark.parametrize("shares,expected", [
    ((0.1, 0.2, 0.9), (10, 10, 10)), ((1.0, 1.0, 1.0), (0, 0, 0)), ((0.0, 0.5, 0.9), (5, 5, 10)),
    ((0.0, 0.2, 0.5), (10, 10, np.inf)),
])  # fmt: skip
def test_the_first_step_at_which_half_is_back(shares, expected):
    seen = [np.arange(100) < 100 * share for share in shares]
    found = returned("relearn", [0, 5, 10], seen, 200)
    first = found["relearn_steps"]
    assert (first.value, first.lo, first.hi) == expected
    assert [found[f"target_relearn_{step}"].value for step in (0, 5, 10)] == list(shares)


def test_what_never_returns_has_a_reason():
    first = returned("prefix", [0, 8], [np.zeros(9, bool)] * 2, 20)["prefix_steps"]
    assert first.value is None and first.reason == "the target is not back within 8 steps"


@pytest.mark.parametrize("changes,words", [
    ({"tasks": ["no-dog"]}, "robustness.tasks: 'no-dog' is not in the list `concept.tasks`"),
    ({"rows": ["naive"]}, "robustness.rows: 'naive' is not in the list `concept.rows`"),
    ({"attacks": ["hammer"]}, "Input should be 'relearn' or 'prefix'"),
    ({"relearn": {"steps": []}}, "robustness.relearn.steps"),
    ({"relearn": {"steps": [20, 10]}}, r"robustness.relearn.steps: must ascend, and not be empty \(got \[20, 10\]\)"),
    ({"relearn": {"steps": [7, 100]}}, "7 is not a multiple of 5, a twentieth of the last"),
    ({"prefix": {"lr": "fast"}}, "robustness.prefix.lr"),
    ({"relearn": {"vectors": 3}}, "robustness.relearn.vectors: unknown parameter"),
])  # fmt: skip
def test_wrong_parameters_are_named(tmp_path, changes, words):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(enabled("no-zero", **changes)))
    with pytest.raises(UserError, match=words) as raised:
        params.load(file)
    assert "\n" not in str(raised.value)


def test_nothing_enabled_is_nothing_planned(tmp_path):
    def planned(made: dict) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        planning.write_all(params.Params.model_validate(made), ROOT, folder)
        return {path.name for path in folder.iterdir()}

    off = planned(parameters(["no-zero"], ["sa"]))
    assert planned(enabled("no-zero")) - off == {"relearn-no-zero.json", "prefix-no-zero.json"}
    assert planned(enabled("no-zero", tasks=[])) == off
