"""What one subject of a concept task trains on: retained pictures, pictures of the target, what the original draws.

Made once a subject and shared by all rows: latents are encoded here, and the anchor's pictures drawn. A model that was
trained elsewhere draws all pictures itself. As in DoCo, what is drawn is a picture, which is encoded again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode.core import seeds
from palinode.core.images import to_images, to_model
from palinode.core.io import read_array
from palinode.core.scratch import Scratch
from palinode.data import prompt_file, prompt_sets
from palinode.data.captions import BACKGROUNDS, EMOJI, STYLES, Caption, Grammar
from palinode.data.prompt_sets import PromptSets
from palinode.data.scenes import EmojiCorpus, Scenes, seen_pairs
from palinode.models.denoiser import Denoiser, Prompt
from palinode.params.stage_settings import PrepareConcept
from palinode.sampling import prompted
from palinode.tasks.subjects import seed_name
from palinode.training.concept_batches import ConceptData

Key = tuple[int, str]


@dataclass(frozen=True)
class Made:
    """All that is prepared of a subject.

    real: a real picture for each retained prompt that asks for something, uint8 [N, H, W, C]; None where there are no
    real pictures. edit_prompts: prompts that end in a name, for closed-form edits; empty for classes.
    """

    prompt_sets: PromptSets
    data: ConceptData
    real: np.ndarray | None
    edit_prompts: dict[str, list[str]]


@dataclass(frozen=True)
class Pictures:
    """Pictures in the model's own space with what they show: retained ones, and pairs of (target, anchor) prompts."""

    retain: Tensor
    retain_prompts: list
    forget: Tensor
    pairs: list[tuple[Prompt, Prompt]]


def build(model: Denoiser, settings: PrepareConcept, subject: int, scratch: Scratch) -> Made:
    """Everything of one subject; `scratch` is where drawn pictures wait, so that a killed run continues."""
    key = (settings.root_seed, seed_name(settings.name, subject))
    if settings.prompts is not None:
        return _build_drawn(model, settings, key, scratch)
    if settings.kind == "text":
        return _build_captioned(model, settings, key)
    return _build_labelled(model, settings, key)


def _build_drawn(model: Denoiser, settings: PrepareConcept, key: Key, scratch: Scratch) -> Made:
    """Pictures are the model's own."""
    target, anchor = str(settings.target), str(settings.anchor)
    concepts, grammar = prompt_file.read(str(settings.prompts))
    generator = seeds.generator(*key, "strata")
    sets = prompt_sets.of_captions(concepts, target, anchor, settings.sample.each, generator, grammar)
    retained = prompt_sets.readable(grammar, concepts, target, settings.amounts.retain, generator)
    pairs = _draw_pairs(sets, settings.amounts.pairs, seeds.generator(*key, "pictures"))
    sample = settings.sample

    def draw(role: str, prompts: list) -> Tensor:
        own_key = (key[0], f"{key[1]} {role}")
        part = scratch.part(role)
        images = prompted.draw(model, prompts, own_key, sample.guidance, sample.steps, part, sample.chunk)
        return model.encode_all(to_model(images), sample.chunk)

    retain = draw("kept", retained)
    forget = draw("shown", [target_text for target_text, _ in pairs])
    data = _assemble(model, Pictures(retain, retained, forget, pairs), settings, key)
    return Made(sets, data, None, _edit_prompts(grammar, list(concepts), target, anchor))


def _build_captioned(model: Denoiser, settings: PrepareConcept, key: Key) -> Made:
    """Pictures are rendered anew and encoded."""
    target, anchor = str(settings.target), str(settings.anchor)
    corpus = EmojiCorpus.read()
    each = settings.sample.each
    sets = prompt_sets.of_captions(corpus.concepts, target, anchor, each, seeds.generator(*key, "strata"))
    generator = seeds.generator(*key, "pictures")
    count = settings.amounts.retain
    scenes = Scenes.draw(seen_pairs(list(corpus.concepts), frozenset({target})), count, generator)
    captions = [scenes.caption(i, corpus, generator) for i in range(count)]
    retain = model.encode_all(scenes.render(corpus, generator))
    chosen = _draw_rows(len(sets.training), settings.amounts.pairs, generator)
    pairs = [sets.training[i] for i in chosen]
    shown = _scenes([of_target for of_target, _ in pairs], corpus, generator)
    forget = model.encode_all(shown.render(corpus, generator))
    texts: list[tuple[Prompt, Prompt]] = [(of_target.text, of_anchor.text) for of_target, of_anchor in pairs]
    data = _assemble(model, Pictures(retain, captions, forget, texts), settings, key)
    generator = seeds.generator(*key, "real")
    real = to_images(_scenes(real_prompts(sets), corpus, generator).render(corpus, generator))
    return Made(sets, data, real, _edit_prompts(EMOJI, list(corpus.concepts), target, anchor))


def _build_labelled(model: Denoiser, settings: PrepareConcept, key: Key) -> Made:
    """Pictures are those of the data set that the base was trained on."""
    target, anchor = int(settings.target), int(settings.anchor)
    path = Path(str(settings.images))
    images = read_array(path)
    labels = read_array(path.with_name(f"{path.stem}-labels.npy"))
    classes = int(labels.max()) + 1
    sets = prompt_sets.of_classes(classes, target, anchor, settings.sample.each)
    generator = seeds.generator(*key, "real")
    real = [_choose(images[labels == int(caption.text)], 1, generator) for caption in real_prompts(sets)]
    generator = seeds.generator(*key, "pictures")
    retained = _choose(np.flatnonzero(labels != target), settings.amounts.retain, generator)
    shown = _choose(np.flatnonzero(labels == target), settings.amounts.pairs, generator)
    pairs: list[tuple[Prompt, Prompt]] = [(target, anchor)] * settings.amounts.pairs
    pictures = Pictures(to_model(images[retained]), labels[retained].tolist(), to_model(images[shown]), pairs)
    return Made(sets, _assemble(model, pictures, settings, key), np.concatenate(real), {})


def real_prompts(sets: PromptSets) -> list[Caption]:
    """The retained prompts in order, without the null ones: what metrics compare with real pictures of the same."""
    return [caption for captions in sets.retain.values() for caption in captions if caption.text]


def _edit_prompts(grammar: Grammar, things: list[str], target: str, anchor: str) -> dict[str, list[str]]:
    """Prompts that end in a name: the target's, the anchor's, those of everything else that is known."""
    kept = [name for name in (*things, *grammar.styles.all) if name not in (target, anchor)]
    prompts = {"target": [target], "anchor": [anchor], "kept": kept}
    in_templates = {
        f"{role}_in_templates": [text for name in names for text in prompt_sets.ending_in(grammar, name, things)]
        for role, names in prompts.items()
    }
    return prompts | in_templates


def _assemble(model: Denoiser, pictures: Pictures, settings: PrepareConcept, key: Key) -> ConceptData:
    """Add what the original model draws: pictures of the anchor."""
    named = [prompt for pair in pictures.pairs for prompt in pair]
    prompts = list(dict.fromkeys([model.null_prompt, *pictures.retain_prompts, *named]))
    index = {prompt: i for i, prompt in enumerate(prompts)}
    targets = [target for target, _ in pictures.pairs]
    anchors = [anchor for _, anchor in pictures.pairs]
    sample = settings.sample
    # A key of its own: the noise is not that of the samples that are measured.
    anchor_key = (key[0], f"{key[1]} anchor")
    drawn = prompted.draw(model, anchors, anchor_key, sample.guidance, sample.steps, None, sample.chunk)

    def numbers(chosen: list) -> Tensor:
        return torch.tensor([index[prompt] for prompt in chosen])

    return ConceptData(
        prompts=prompts,
        retain=pictures.retain,
        retain_prompt=numbers(pictures.retain_prompts),
        forget=pictures.forget,
        forget_prompt=numbers(targets),
        anchor=model.encode_all(to_model(drawn), sample.chunk),
        anchor_prompt=numbers(anchors),
    )


def _draw_pairs(sets: PromptSets, count: int, generator: torch.Generator) -> list[tuple[Prompt, Prompt]]:
    pairs = [sets.training[i] for i in _draw_rows(len(sets.training), count, generator)]
    return [(of_target.text, of_anchor.text) for of_target, of_anchor in pairs]


def _draw_rows(total: int, count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(total, (count,), generator=generator).tolist()


def _choose(among: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    return among[torch.randint(len(among), (count,), generator=generator).numpy()]


def _scenes(captions: list[Caption], corpus: EmojiCorpus, generator: torch.Generator) -> Scenes:
    """Scenes of one thing as captions ask for; a style or background that is not named is drawn at random."""
    things = list(corpus.concepts)

    def number(name: str | None, among: list[str]) -> int:
        drawn = int(torch.randint(len(among), (1,), generator=generator))
        return drawn if name is None else among.index(name)

    rows = []
    for caption in captions:
        thing = things.index(caption.concepts[0])
        style = number(caption.style, list(STYLES))
        background = number(caption.background, list(BACKGROUNDS))
        rows.append((thing, -1, style, background))
    return Scenes(*torch.tensor(rows).T)
