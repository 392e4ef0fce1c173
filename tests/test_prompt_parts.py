"""The kind `prompts` without its stages: settings, success, quality, mitigation, what a list tells."""

import re

import numpy as np
import pytest
import tiny
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import ROOT
from test_prompt_stages import parameters

from palinode import methods, params
from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.core.scratch import Scratch
from palinode.data.prompt_lists import Prompt
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import ground_truth, mitigation, realism
from palinode.memorization.control_prompts import ControlPrompts
from palinode.memorization.prompt_sampler import PromptSampler
from palinode.metrics import prompt_metrics
from palinode.metrics.prompt_metrics import Observation
from palinode.models import text_to_image
from palinode.models.guidance import FixedCondition
from palinode.params.fields import Training
from palinode.params.prompt_tasks import PromptSample
from palinode.pipeline import planning
from palinode.tasks.prompts.targets import MemorizedPrompt, TrainingTarget
from palinode.tasks.prompts.unlearn import training_data
from palinode.training.concept_batches import ConceptBatches
from palinode.training.loop import train

TASK = tiny.PROMPT_TASK


@pytest.fixture(scope="module")
def corpus() -> EmojiCorpus:
    return EmojiCorpus.read(ROOT / "data/emoji")


@pytest.fixture
def model(corpus) -> text_to_image.TextToImage:
    return text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, 1)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_siss_on_a_model_with_a_fixed_prompt_is_finite(model, lam):
    with torch.no_grad():
        seen = FixedCondition(model, model.condition(["a cat"]))
    retain, forget = torch.randn(2, 5, *model.shape, generator=torch.Generator().manual_seed(0))
    prompt = MemorizedPrompt("a cat", "verbatim", 1.0, "cat", "a cat", 0, [], {}, {})
    target = TrainingTarget(prompt, retain, forget[:3], torch.tensor([[0, 1], [2, 3], [4, 0]]))
    data = training_data(target, model, anchored=False)
    batches = ConceptBatches(data, model, 3, 2, ("key",), neighbours=target.neighbours)
    first, again = (next(batches(4)) for _ in range(2))
    assert torch.equal(first.x, again.x) and torch.equal(first.eps, again.eps)
    for a, near in zip(first.a, first.neighbours, strict=True):
        row = next(i for i in range(3) if torch.equal(target.forget[i], a))
        assert torch.equal(near, retain[target.neighbours[row]])
    assert torch.equal(first.c_x, first.c_a) and not torch.equal(first.c_anchor, first.c_a)
    x_t, t = first.x, first.t
    assert torch.equal(seen.predict(x_t, t), model.predict(x_t, t, first.c_a))
    assert torch.equal(seen.predict(x_t, t, first.c_anchor), model.predict(x_t, t, model.condition([""] * 3)))
    settings = Training(steps=2, lr=1e-3, batch=3, accumulate=2)
    with Scratch("fixed", []) as scratch:
        method = methods.load("siss", {"lam": lam, "norm": 1.0})
        method.begin(seen, {"seed": 1})
        history = train(seen, method, batches, settings, scratch, "fixed")
    assert all(np.isfinite(value) for line in history for value in line.values())
    assert seen.nfe is model.nfe and model.nfe["forward"] >= 2 * 3 * 2


def test_a_method_with_an_anchor_keeps_what_the_null_prompt_draws(model):
    prompt = MemorizedPrompt("a cat", "verbatim", 1.0, "cat", "a cat", 0, [], {}, {})
    target = TrainingTarget(prompt, torch.ones(3, *model.shape), torch.zeros(2, *model.shape), torch.zeros(2, 1))
    plain, anchored = (training_data(target, model, anchored) for anchored in (False, True))
    assert plain.prompts == anchored.prompts == ["", "a cat"]
    assert plain.retain_prompt.tolist() == [1, 1, 1] and anchored.retain_prompt.tolist() == [0, 0, 0]
    assert anchored.anchor_prompt.tolist() == [0, 0] and anchored.forget_prompt.tolist() == [1, 1]


def test_mitigation_moves_the_states_of_flagged_prompts_alone(model):
    texts = ["", "a cat", "distant glacier under glass"]
    own = model.condition(texts)
    high, low = (mitigation.Mitigating(model, target, (1, "few"), 2, 3.0) for target in (1e9, 1e-9))
    assert torch.equal(high.condition(texts), own)
    with torch.inference_mode():
        moved = low.condition(texts)
    assert torch.equal(moved[0], own[0]) and not torch.equal(moved[1], own[1])
    assert torch.equal(low.condition(texts[::-1]), moved.flip(0)) and low.net is model.net


def test_success_is_nothing_memorized_at_the_end_and_quality_throughout():
    def observed(last: list[bool], *quality: float) -> list[Observation]:
        memorized = [np.ones(4, bool), np.ones(4, bool), np.array(last)]
        return [
            Observation(hits, hits, np.zeros(4), np.array([value] * 4))
            for hits, value in zip(memorized, quality, strict=True)
        ]

    nothing = [False] * 4
    assert prompt_metrics.is_success(observed(nothing, 0.9, 0.5, 0.9), 0.5)
    assert not prompt_metrics.is_success(observed(nothing, 0.9, 0.4, 0.9), 0.5)
    assert not prompt_metrics.is_success(observed([False, True, False, False], 0.9, 0.9, 0.9), 0.5)


def test_realism_tells_noise_from_pictures(corpus):
    judge = storage.load(ROOT / "models/emoji/judge", SceneJudge)
    real = realism.fit_realism(judge, corpus, 64, (1, "t"))
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    fixed = (corpus.fixed[:8, :3].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    assert not real(noise).any() and not real(np.full((2, 32, 32, 3), 128, np.uint8)).any() and real(fixed).any()
    assert real.least_quality([fixed, noise]) == pytest.approx(0.35 / 0.811 * real(fixed).mean() / 2)


def enabled(**changes) -> dict:
    return {"prompts": {"tasks": ["few"], "rows": ["naive"]} | changes}


def few(**changes) -> dict:
    return {"prompt_tasks": {"few": TASK | changes}}


@pytest.mark.parametrize(
    "change, words",
    [
        (enabled(rows=["nemo"]), "prompts.rows: 'nemo' is not defined under `rows`"),
        (enabled(tasks=["some"]), "prompts.tasks: 'some' is not defined under `prompt_tasks`"),
        (enabled(rows=[]), "prompts.rows: the list is empty"),
        (enabled(subjects=[]), "prompts.subjects: the list is empty"),
        (enabled(subjects=[0, "all"]), "prompts.subjects"),
        (enabled(rows=["salun"]), "prompts.rows: salun needs the gradient's size on what is forgotten"),
        (few(split={"rule": "unprompted", "trial": 4}), "trial: no edit is tried under the rule `unprompted`"),
        (few(base="emoji"), "prompt_tasks.few.base: 'emoji' is not defined under `base_models` for the kind prompts"),
        (few(base="two"), "prompt_tasks.few.base: 'two' is not defined under `base_models` for the kind prompts"),
        ({"prompt_tasks": {"tiny": TASK, "few": TASK}}, "'tiny' names two tasks: they would share a folder"),
        (few(overrides={"nemo": {}}), "prompt_tasks.few.overrides: 'nemo'"),
        (few(unlearn={"steps": 5}), "unlearn.steps: pictures are drawn every 2 steps"),
        (few(split={"share_range": [0.9, 0.25]}), "split.share_range: the ends must ascend"),
        (few(choose={"threshold": 0}), "choose.threshold"),
        (few(sscd="sscd.pt"), "few.sscd is not used: the fixed pictures of 'mini' are known"),
        (
            {
                "base_models": {"mini": {"kind": "text", "source": "a folder", "sampler": {"steps": 10}}},
                "bases": ["mini"],
            },
            "detection.prompts: what 'mini' was shown is unknown, so list them",
        ),
        ({"detection": {"bases": []}}, "prompts.tasks: 'few' needs 'mini' in the list `detection.bases`"),
        ({"bases": ["two"]}, "prompts.tasks: 'few' needs 'mini' in the list `bases`"),
    ],
)
def test_wrong_parameters_name_their_key(tmp_path, change, words):
    made = parameters() | change
    if "base_models" in change:  # tasks of the other bases would be refused first
        made["image_tasks"] = {}
    with pytest.raises((UserError, ValueError), match=re.escape(words)):
        planning.write_all(params.Params.model_validate(made), ROOT, tmp_path)


def test_a_row_takes_the_steps_of_its_task(tmp_path):
    made = params.Params.model_validate(parameters(overrides={"naive": {"lr": 0.5}}))
    planning.write_all(made, ROOT, tmp_path)
    settings = read_json(tmp_path / "unlearn-prompts/few/naive.json")["settings"]["training"]
    assert (settings["steps"], settings["lr"], settings["betas"]) == (4, 0.5, [0.9, 0.999])


def test_a_list_tells_repeated_pictures_and_words(model):
    known = ground_truth.PromptListGroundTruth()
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    assert "do not repeat: 12%" in known.match(noise, noise[0])
    assert known.match(noise[:1].repeat(4, 0), noise[0]) == ground_truth.NO_PICTURE
    words = known.words(model.tokenizer)
    assert "cat" in words and "a" not in words
    assert {len(ids) for ids in model.tokenizer(words).input_ids} == {3}, "one token each"


def test_a_list_of_flagged_prompts_alone_is_refused():
    prompts = [Prompt("a cat", "unlabelled"), Prompt("a dog", "unlabelled")]
    known = ground_truth.PromptListGroundTruth()
    assert known.control_prompts(prompts, [0], ["a cat"], 4) == ControlPrompts(["a dog"], [], ["a cat"])
    with pytest.raises(UserError, match="all 2 prompts are flagged: list some of the kind `ordinary` as well"):
        known.control_prompts(prompts, [0, 1], ["a cat"], 4)


def test_snapshots_in_small_chunks_see_the_same(model):
    once, parts = (
        PromptSampler(model, 1, "few", PromptSample(count=5, steps=2, chunk=chunk), 2).snapshot(["", "a cat"])
        for chunk in (64, 2)
    )
    assert parts.norms == pytest.approx(once.norms, rel=1e-4, abs=1e-5)
    assert np.abs(parts.pictures.astype(int) - once.pictures).max() <= 1


def test_norms_are_measured_at_the_detectors_first_step(model):
    sampled = [
        PromptSampler(model, 1, "few", PromptSample(count=2, steps=steps), probe).snapshot(["", "a cat"])
        for steps, probe in ((2, 5), (3, 5), (2, 2))
    ]
    assert np.array_equal(sampled[0].norms, sampled[1].norms)
    assert not np.array_equal(sampled[0].norms, sampled[2].norms)


def test_under_the_null_prompt_nothing_guides(model):
    sampler = PromptSampler(model, 1, "few", PromptSample(count=5, steps=2), probe_steps=2)
    guided = sampler.draw(["", "a cat"], "use")[0]
    before = model.nfe["forward"]
    alone = sampler.draw([""], "use")
    assert np.abs(guided.astype(int) - alone[0]).max() <= 1
    assert model.nfe["forward"] - before == sampler.sample.steps


def test_the_prompts_that_are_tuned_on_are_not_reported():
    loaded = params.load(ROOT / "params.yaml")
    for name in loaded.prompts.tasks:
        shown = loaded.prompt_tasks[name].choose
        tuned = loaded.prompt_tasks[f"{name}-val"].choose
        assert tuned.skip >= shown.skip + shown.among
