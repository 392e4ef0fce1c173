"""The family prompts without its stages: settings, success, quality, mitigation, what a list tells."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TEXT_MODEL, TEXT_SCHEDULER
from project import ROOT
from test_prompt_stages import TASK, parameters

from palinode import params
from palinode.classifiers import files
from palinode.classifiers.scenes import SceneJudge
from palinode.core.errors import UserError
from palinode.core.io import read_json
from palinode.data.prompt_lists import Prompt
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import ground_truth, mitigation, prompt_sampler, realism
from palinode.metrics import prompt_metrics
from palinode.models import text_to_image
from palinode.pipeline import planning


@pytest.fixture
def corpus() -> EmojiCorpus:
    return EmojiCorpus.read(ROOT / "data/emoji")


def test_mitigation_moves_the_states_of_flagged_prompts_alone(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, 1)
    settings = SimpleNamespace(root_seed=1, task="few", sample=SimpleNamespace(steps=2, guidance=3.0))
    asked = ["", "a cat", "distant glacier under glass"]
    own = model.condition(asked)
    high, low = (mitigation.Mitigating(model, target, settings) for target in (1e9, 1e-9))
    assert torch.equal(high.condition(asked), own)
    with torch.inference_mode():
        moved = low.condition(asked)
    assert torch.equal(moved[0], own[0]) and not torch.equal(moved[1], own[1])
    assert torch.equal(low.condition(asked[::-1]), moved.flip(0)) and low.net is model.net


def test_success_is_nothing_memorized_at_the_end_and_quality_throughout():
    def seen(last: list[bool], *real: float) -> dict:
        found = {("original", step): {"memorized": np.ones(4, bool), "quality": np.array([value] * 4)}
                 for step, value in zip((0, 5, 10), real, strict=True)}  # fmt: skip
        found["original", 10]["memorized"] = np.array(last)
        return found

    null_prompt = [False] * 4
    assert prompt_metrics.succeeded(seen(nothing, 0.9, 0.5, 0.9), "original", 0.5)
    assert not prompt_metrics.succeeded(seen(nothing, 0.9, 0.4, 0.9), "original", 0.5)
    assert not prompt_metrics.succeeded(seen([False, True, False, False], 0.9, 0.9, 0.9), "original", 0.5)


def test_realism_tells_noise_from_pictures(corpus):
    eyes = files.load(ROOT / "models/emoji/judge", SceneJudge)
    real = realism.realism(eyes, corpus, 64, (1, "t"))
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    fixed = (corpus.fixed[:8, :3].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    assert not real(noise).any() and not real(np.full((2, 32, 32, 3), 128, np.uint8)).any() and real(fixed).any()
    assert real.least([fixed, noise]) == pytest.approx(0.35 / 0.811 * real(fixed).mean() / 2)


@pytest.mark.parametrize(("change", "words"), [
    ({"prompts": {"tasks": ["few"], "rows": ["nemo"]}}, "prompts.rows: 'nemo' is not defined under `rows`"),
    ({"prompts": {"tasks": ["some"], "rows": ["naive"]}}, "prompts.tasks: 'some' is not defined under `prompt_tasks`"),
    ({"prompts": {"tasks": ["few"], "rows": []}}, "prompts.rows: the list is empty"),
    ({"prompts": {"tasks": ["few"], "rows": ["salun"]}}, "'salun' needs a saliency map, which the family"),
    ({"prompt_tasks": {"few": TASK | {"split": {"rule": "unprompted", "trial": 4}}}}, "trial: no edit is tried"),
    ({"prompt_tasks": {"few": TASK | {"base": "emoji"}}}, "prompt_tasks.few.base: 'emoji' is not defined"),
    ({"prompt_tasks": {"tiny": TASK, "few": TASK}}, "'tiny' names two of the tasks and bases"),
    ({"prompt_tasks": {"few": TASK | {"overrides": {"nemo": {}}}}}, "prompt_tasks.few.overrides: 'nemo'"),
    ({"prompt_tasks": {"few": TASK | {"unlearn": {"steps": 5}}}}, "unlearn.steps"),
    ({"prompt_tasks": {"few": TASK | {"split": {"share": [0.9, 0.25]}}}}, "split.share: the ends must ascend"),
    ({"prompt_tasks": {"few": TASK | {"choose": {"threshold": 0}}}}, "choose.threshold"),
    ({"prompt_tasks": {"few": TASK | {"sscd": "sscd.pt"}}}, "few.sscd is not used: the fixed pictures of 'mini' are"),
    ({"text_bases": {"mini": {"source": "a folder"}}}, "detection.prompts: what 'mini' was shown is unknown"),
    ({"detection": {"bases": []}}, "prompts.tasks: 'few' needs 'mini' in the list `detection.bases`"),
])  # fmt: skip
def test_wrong_parameters_name_their_key(tmp_path, change, words):
    with pytest.raises((UserError, ValueError), match=words):
        planning.write_all(params.Params.model_validate(parameters() | change), ROOT, tmp_path)


def test_a_row_takes_the_steps_of_its_task(tmp_path):
    made = params.Params.model_validate(parameters(overrides={"naive": {"lr": 0.5}}))
    planning.write_all(made, ROOT, tmp_path)
    found = read_json(tmp_path / "unlearn-prompts-few-naive.json")["settings"]["training"]
    assert (found["steps"], found["lr"], found["betas"]) == (4, 0.5, [0.9, 0.999])


def test_a_list_tells_repeated_pictures_and_words(corpus):
    known, model = ground_truth.PromptListGroundTruth(), text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, 1)
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    assert "do not repeat: 12%" in known.match(noise, noise[0]) and known.match(noise[:1].repeat(4, 0), noise[0]) == -1
    words = known.words(model.tokenizer)
    assert "cat" in words and "a" not in words
    assert {len(it) for it in model.tokenizer(words).input_ids} == {3}, "one token each"


def test_a_list_of_flagged_prompts_alone_is_refused():
    asked = [Prompt("a cat", "unlabelled"), Prompt("a dog", "unlabelled")]
    assert ground_truth.PromptListGroundTruth().control_prompts(asked, [0], ["a cat"], 4) == ground_truth.ControlPrompts(["a dog"], [], ["a cat"])
    with pytest.raises(UserError, match="all 2 prompts are flagged: list some of the kind `ordinary` as well"):
        ground_truth.PromptListGroundTruth().control_prompts(asked, [0, 1], ["a cat"], 4)


def test_looks_in_small_chunks_see_the_same(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, 1)
    sample = SimpleNamespace(count=5, steps=2, guidance=3.0, chunk=64)
    settings = SimpleNamespace(root_seed=1, task="few", sample=sample)
    once = prompt_sampler.PromptSampler(model, settings).snapshot(["", "a cat"])
    sample.chunk = 2
    found = prompt_sampler.PromptSampler(model, settings).snapshot(["", "a cat"])
    assert found.norms == pytest.approx(once.norms, rel=1e-4)
    assert np.abs(found.pictures.astype(int) - once.pictures).max() <= 1


def test_under_the_empty_prompt_nothing_guides(corpus):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, corpus.words, 1)
    sample = SimpleNamespace(count=5, steps=2, guidance=3.0, chunk=64)
    sampler = prompt_sampler.PromptSampler(model, SimpleNamespace(root_seed=1, task="few", sample=sample))
    guided, before = sampler.draw(["", "a cat"], "it")[0], model.nfe["forward"]
    alone = sampler.draw([""], "it")
    assert np.abs(guided.astype(int) - alone[0]).max() <= 1 and model.nfe["forward"] - before == sample.steps


def test_the_prompts_that_are_tuned_on_are_not_reported():
    loaded = params.load(ROOT / "params.yaml")
    for name in loaded.prompts.tasks:
        shown, tuned = loaded.prompt_tasks[name].choose, loaded.prompt_tasks[f"{name}-val"].choose
        assert tuned.skip >= shown.skip + shown.among
