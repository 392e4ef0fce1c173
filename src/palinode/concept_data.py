"""What a concept task trains on: kept pictures, pictures of the target, and what the original model draws.

Made once a task and shared by all rows: latents are encoded here, the anchor's pictures and the states of the original
model's sampling are drawn here. A model that was trained elsewhere draws all pictures itself; as in DoCo they are
decoded and encoded again.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import conditional_sampling, seeds
from palinode.concept import ConceptData
from palinode.data import prompt_file
from palinode.data import strata as tiers
from palinode.data.captions import BACKGROUNDS, STYLES, Caption
from palinode.data.scenes import Scenes, World, seen_pairs
from palinode.data.strata import Strata
from palinode.io import read_array
from palinode.models import Diffuser, to_images, to_model
from palinode.text_pretraining import encoded


def build(model: Diffuser, settings, folder=None) -> tuple[Strata, ConceptData, np.ndarray | None, dict | None]:
    """Prompts, training data, a real picture for each kept prompt that asks for something (`real_prompts`, uint8 [N, H,
    W, C]; None where there are no real pictures) and, for closed-form edits of a text-to-image model, `names`.

    settings: the plan; folder: where pictures that are drawn wait, so that a killed run continues.
    """
    key, pair = (settings.root_seed, settings.task), (settings.target, settings.anchor)
    if settings.prompts is not None:
        (concepts, grammar), generator = prompt_file.read(settings.prompts), seeds.generator(*key, "strata")
        prompts = tiers.of_captions(concepts, *pair, settings.sample.each, generator, grammar)
        kept = tiers.readable(grammar, concepts, settings.target, settings.training.kept, generator)
        data = of_drawn(model, kept, prompts, settings.training, key, folder)
        return prompts, data, None, names([*concepts, *grammar.styles.all], *pair)
    if settings.kind == "text":
        world, generator = World.read(), seeds.generator(*key, "strata")
        prompts = tiers.of_captions(world.concepts, *pair, settings.sample.each, generator)
        data = of_captions(model, world, settings.target, prompts, settings.training, key)
        generator = seeds.generator(*key, "real")
        real = to_images(_scenes(real_prompts(prompts), world, generator).render(world, generator))
        return prompts, data, real, names([*world.concepts, *STYLES], *pair)
    path = Path(settings.images)
    images, labels = read_array(path), read_array(path.with_name(f"{path.stem}-labels.npy"))
    prompts = tiers.of_classes(model.classes, *pair, settings.sample.each)
    generator = seeds.generator(*key, "real")
    real = np.concatenate([_some(images[labels == int(it.text)], 1, generator) for it in real_prompts(prompts)])
    return prompts, of_classes(model, images, labels, *pair, settings.training, key), real, None


def real_prompts(strata: Strata) -> list[Caption]:
    """The kept prompts in order, without the empty ones: what metrics compare with real pictures of the same."""
    return [caption for some in strata.keep.values() for caption in some if caption.text]


def names(known: list[str], target: str, anchor: str) -> dict[str, list[str]]:
    """Prompts that end in a name: the target's, the anchor's, those of everything else that is known."""
    return {"target": [target], "anchor": [anchor], "kept": [name for name in known if name not in (target, anchor)]}


def of_captions(model: Diffuser, world: World, target: str, strata: Strata, settings, key: tuple) -> ConceptData:
    """Pictures are rendered anew and encoded. settings: kept, pairs, traces (how many each), guidance, steps, chunk."""
    generator = seeds.generator(*key, "pictures")
    scenes = Scenes.draw(seen_pairs(list(world.concepts), {target}), settings.kept, generator)
    captions = [scenes.caption(i, world, generator) for i in range(settings.kept)]
    x = encoded(model, scenes.render(world, generator))
    pairs = _pairs(strata, settings.pairs, generator)
    shown = _scenes([one for one, _ in pairs], world, generator)
    a = encoded(model, shown.render(world, generator))
    texts = [tuple(caption.text for caption in both) for both in pairs]
    return _assembled(model, x, captions, a, texts, settings, key)


def of_drawn(model: Diffuser, kept: list[str], strata: Strata, settings, key: tuple, folder=None) -> ConceptData:
    """Pictures are the model's own, under the `kept` captions and those of the target. settings: as above."""
    pairs = _pairs(strata, settings.pairs, seeds.generator(*key, "pictures"))
    texts = [tuple(caption.text for caption in both) for both in pairs]

    def drawn(role: str, prompts: list[str]) -> Tensor:
        rest = (settings.guidance, settings.steps, folder and folder / role, settings.chunk)
        images = conditional_sampling.draw(model, prompts, (key[0], f"{key[1]} {role}"), *rest)
        return encoded(model, to_model(images), settings.chunk)

    x, a = drawn("kept", kept), drawn("shown", [target for target, _ in texts])
    return _assembled(model, x, kept, a, texts, settings, key)


def of_classes(
    model: Diffuser, images: np.ndarray, labels: np.ndarray, target: int, anchor: int, settings, key: tuple
) -> ConceptData:
    """Pictures are those of the data set, uint8 [N, H, W, C]. settings: as for captions."""
    generator = seeds.generator(*key, "pictures")

    kept = _some(np.flatnonzero(labels != target), settings.kept, generator)
    shown = _some(np.flatnonzero(labels == target), settings.pairs, generator)
    pairs = [(target, anchor)] * settings.pairs
    return _assembled(
        model, to_model(images[kept]), labels[kept].tolist(), to_model(images[shown]), pairs, settings, key
    )


def _assembled(model, x: Tensor, shown: list, a: Tensor, pairs: list[tuple], settings, key: tuple) -> ConceptData:
    prompts = list(dict.fromkeys([model.nothing, *shown, *(one for both in pairs for one in both)]))
    index = {prompt: i for i, prompt in enumerate(prompts)}
    targets, anchors = ([both[k] for both in pairs] for k in (0, 1))
    anchor_key, target_key = ((key[0], f"{key[1]} {role}") for role in ("anchor", "target"))  # not the noise of samples
    sampler = (settings.guidance, settings.steps, settings.chunk)
    m, _, _ = conditional_sampling.trace(model, anchors, anchor_key, *sampler)
    traced = targets[: settings.traces]
    _, z, times = conditional_sampling.trace(model, traced, target_key, *sampler)

    def numbers(some: list) -> Tensor:
        return torch.tensor([index[prompt] for prompt in some])

    return ConceptData(prompts, x, numbers(shown), a, m, numbers(targets), numbers(anchors), z, numbers(traced), times)


def _pairs(strata: Strata, count: int, generator: torch.Generator) -> list[tuple[Caption, Caption]]:
    return [strata.given[i] for i in torch.randint(len(strata.given), (count,), generator=generator).tolist()]


def _some(among: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    return among[torch.randint(len(among), (count,), generator=generator).numpy()]


def _scenes(captions: list[Caption], world: World, generator: torch.Generator) -> Scenes:
    """Scenes of one thing as captions ask for; a style or background that is not named is drawn at random."""
    things = list(world.concepts)

    def number(name: str | None, among: list[str]) -> int:
        drawn = int(torch.randint(len(among), (1,), generator=generator))
        return drawn if name is None else among.index(name)

    rows = [
        (things.index(it.concepts[0]), -1, number(it.style, list(STYLES)), number(it.background, list(BACKGROUNDS)))
        for it in captions
    ]
    return Scenes(*torch.tensor(rows).T)
