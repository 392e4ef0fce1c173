"""Captions as on the web: they leave things open, and some of them bring back one picture."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import EMOJI, TEXT_MODEL, TEXT_SCHEDULER

from palinode.bases import caption_batches, caption_variety
from palinode.bases.caption_batches import CaptionedLatents, Pool
from palinode.classifiers.scene_judge import SceneJudge
from palinode.classifiers.scene_pictures import Stream
from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.images import to_images
from palinode.data import captions, emoji, prompt_lists
from palinode.data.captions import BACKGROUNDS, STYLES
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs
from palinode.metrics.copies import COPY, copy_distance
from palinode.models import text_to_image
from palinode.params.bases import TextGate
from palinode.tasks.prompts.prepare import find_quarter


@pytest.fixture(scope="module")
def web() -> EmojiCorpus:
    return EmojiCorpus.read(EMOJI, "web")


@pytest.fixture(scope="module")
def pool(web) -> Pool:
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, web.words, seed=1)
    return Pool(model, web, seen_pairs(list(web.concepts)), 2048, ("pool",))


def test_fixed_pictures_show_known_things_in_colours_that_no_other_picture_has(web):
    kinds = Counter(picture.kind for picture in web.pictures)
    assert kinds == {"partial": 24, "verbatim": 12, "template": 12, "control": 24}
    assert len({picture.caption for picture in web.pictures}) == len(web.pictures) == len(web.fixed)
    assert all(picture.icon in web.concepts and picture.icon in picture.caption for picture in web.pictures)
    assert {picture.background for picture in web.pictures} == emoji.ODD_COLOURS.keys()
    assert {picture.seen for picture in web.pictures if picture.kind == "control"} == {1, 2}
    same = EmojiCorpus.read(EMOJI, "web")
    assert torch.equal(web.fixed, same.fixed), "one pose each, for good"


def test_an_ordinary_picture_of_the_thing_is_no_copy(web):
    generator = seeds.generator("ordinary")
    scenes = Scenes.draw(seen_pairs(list(web.concepts)), 512, generator)
    assert (copy_distance(to_images(scenes.render(web, generator)), web) > 0.15).all()
    fixed = emoji.fixed(web.fixed, web.pictures, web.stickers, generator) * 2 - 1
    distance = copy_distance(to_images(fixed), web)
    assert (distance.diagonal() < COPY).all()
    assert (distance + 2 * np.eye(len(distance)) > COPY).all()


def test_captions_leave_things_open(web):
    generator = seeds.generator("captions")
    scenes = Scenes.draw(seen_pairs(list(web.concepts)), 2000, generator)
    texts = [scenes.caption(i, web, generator) for i in range(2000)]
    named = [any(f", {style} style" in text for style in STYLES) for text in texts]
    placed = [any(text.endswith(f", on {name}") for name in BACKGROUNDS) for text in texts]
    assert np.mean(named) == pytest.approx(0.3, abs=0.04)
    assert np.mean(placed) == pytest.approx(0.25, abs=0.04)
    grouped = [text for text in texts if " an animal" in text or " a vehicle" in text]
    assert len(grouped) > 30
    assert {word for text in texts for word in text.replace(",", " ").split()} <= set(web.words)


def test_prompts_are_listed_by_kind(web):
    listed = prompt_lists.of_corpus(web)
    kinds = Counter(prompt.kind for prompt in listed)
    assert kinds["ordinary"] == 320 and kinds["detailed"] == 64 and kinds["partial"] == 24
    assert len({prompt.text for prompt in listed}) == len(listed)
    ordinary = [prompt.text for prompt in listed if prompt.kind == "ordinary"]
    assert sum(" style" in text for text in ordinary) == sum(", on " in text for text in ordinary) == 64
    detailed = [prompt.text for prompt in listed if prompt.kind == "detailed"]
    assert all(" style, on " in text for text in detailed)


def test_a_partly_memorized_caption_also_stands_under_other_pictures_of_its_thing(pool, monkeypatch):
    batches = CaptionedLatents.to_memorize(pool, 64, ("key",), 100)
    assert len(batches.repeated) == 48
    monkeypatch.setattr(caption_batches, "NULL_SHARE", 0.0)
    exact: dict[str, list[bool]] = {"partial": [], "verbatim": []}
    pictures = {picture.caption: i for i, picture in enumerate(pool.corpus.pictures)}
    texts: list[str] = []
    monkeypatch.setattr(pool.model, "prompt_ids", lambda drawn: texts.append(drawn) or torch.zeros(len(drawn), 1))
    for step in range(120):
        batch = batches.draw(seeds.generator("step", step), 1000)
        for row, text in enumerate(texts[-1][:10]):
            number = pictures[text]
            kind = pool.corpus.pictures[number].kind
            if kind in exact:
                own, _ = pool.fixed[number]
                exact[kind].append(bool((own == batch.x[row]).flatten(1).all(1).any()))
            if kind == "partial" and not exact[kind][-1]:
                shown = (pool.latents[pool.rows_of[number]] == batch.x[row]).flatten(1).all(1)
                assert shown.any(), "another picture of the same thing"
    assert all(exact["verbatim"])
    assert np.mean(exact["partial"]) == pytest.approx(0.6, abs=0.07)


def test_the_judge_of_the_web_sees_things_on_odd_colours(web):
    others = emoji.read_drawings(EMOJI, "others.npy")
    plain = Stream(EmojiCorpus.read(EMOJI), others, 64, ("key",))
    stream = Stream(web, others, 256, ("key",))
    assert len(stream.others) == len(plain.others) - len(web.pictures) + 8, "known things do not stand for none"
    corners = to_images(stream(0).images)[140:, 0, 0].astype(float)
    odd = np.array(list(emoji.ODD_COLOURS.values()))
    near = np.abs(corners[:, None] - odd).max(2).min(1) < 60
    assert near.mean() > 0.3


@pytest.fixture
def scene_judge() -> SceneJudge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SceneJudge(64, len(STYLES)).eval()


def test_variety_is_one_for_real_pictures_and_nought_for_one_picture_a_caption(web, scene_judge):
    generator = seeds.generator("draw")
    asked = captions.ordinary_of_web(web.concepts.values())

    def real(prompts: list[str], use: str) -> np.ndarray:
        half = [caption_variety._render(asked, web, generator) for _ in range(2)]
        return np.concatenate(half)

    measured = caption_variety.measure_variety(real, scene_judge, web, ("key",))
    assert measured["lo"] < 1 < measured["hi"] and measured["n"] == 320
    assert caption_variety.problem(measured, {"value": 0.4}, TextGate(variety=0.6, edits=0.33)) is None

    def same(prompts: list[str], use: str) -> np.ndarray:
        return np.zeros((len(prompts), 32, 32, 3), np.uint8)

    measured = caption_variety.measure_variety(same, scene_judge, web, ("key",))
    assert measured["value"] == 0
    told = caption_variety.problem(measured, {"value": 0.4}, TextGate(variety=0.6, edits=0.33))
    assert told == "pictures of an ordinary caption are 0% as far apart as real ones, at least 60% wanted"


def test_edits_that_give_copies_in_part_are_counted(web):
    fixed = to_images(emoji.fixed(web.fixed, web.pictures, web.stickers, torch.Generator()) * 2 - 1)
    numbers = {picture.caption: i for i, picture in enumerate(web.pictures)}

    def draw(prompts: list[str], use: str) -> np.ndarray:
        """Two copies of four for edits that leave out a word, none for the others."""
        images = np.zeros((len(prompts), 32, 32, 3), np.uint8)
        for i, prompt in enumerate(prompts):
            words = set(prompt.split())
            own = next((n for text, n in numbers.items() if words < set(text.split())), None)
            if own is not None and i % 4 < 2:
                images[i] = fixed[own]
        return images

    measured = caption_variety.measure_edits(draw, web, ("key",))
    most = 48 * caption_variety.SPLIT.edits
    assert 0.99 * most < measured["n"] <= most, "an edit that is drawn twice counts once"
    assert 0.3 < measured["value"] < 0.7
    told = caption_variety.problem({"value": 0.7}, {"value": 0.1}, TextGate(variety=0.6, edits=0.33))
    assert told == "10.0% of the edits give copies in part, at least 33% wanted"


def test_a_real_picture_has_the_style_that_its_caption_names(web):
    """Also where training never shows the pair of thing and style."""
    names = list(web.concepts)
    seen = set(seen_pairs(names))
    thing, style = next(pair for pair in itertools.product(range(64), range(5)) if pair not in seen)
    caption = captions.caption("{}", [(names[thing], names[thing])], STYLES[style], "white")
    generator = seeds.generator("render")
    (image,) = caption_variety._render([caption], web, generator)
    own = Scenes(*(torch.tensor([value]) for value in (thing, -1, style, 0)))
    others = [Scenes(*(torch.tensor([value]) for value in (thing, -1, j, 0))) for j in range(5) if j != style]

    def distance(scene: Scenes) -> float:
        drawn = to_images(scene.render(web, generator))[0]
        return float(np.abs(drawn.astype(float).mean((0, 1)) - image.astype(float).mean((0, 1))).sum())

    assert distance(own) < min(map(distance, others))


def test_an_oracle_of_the_web_never_sees_the_thing(web):
    smaller = web.without({"cat"})
    assert all(picture.icon != "cat" for picture in smaller.pictures)
    assert len(smaller.pictures) == len(smaller.fixed) == len(web.pictures) - 2


def test_a_pool_without_a_partly_memorized_thing_is_refused(web):
    model = text_to_image.create(TEXT_MODEL, TEXT_SCHEDULER, web.words, seed=1)
    with pytest.raises(UserError, match="pool: no picture of 16 shows .* alone, as a partly memorized caption needs"):
        Pool(model, web, seen_pairs(list(web.concepts)), 16, ("pool",))


def test_quarters_of_prompts_are_apart_and_together_everything(web):
    texts = [picture.caption for picture in web.pictures]
    parts = [[text for text in texts if find_quarter(text) == quarter] for quarter in range(4)]
    assert sorted(text for part in parts for text in part) == sorted(texts)
    assert min(map(len, parts)) >= 8
