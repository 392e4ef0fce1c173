"""What a concept task trains on: kept pictures, pictures of the target, and what the original model draws.

Made once a task and shared by all rows: latents are encoded here, the anchor's pictures and the states of the original
model's sampling are drawn here.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import conditional_sampling, seeds
from palinode.concept import ConceptData
from palinode.data.captions import BACKGROUNDS, STYLES, Caption
from palinode.data.scenes import Scenes, World, seen_pairs
from palinode.data.strata import Strata
from palinode.io import atomic, read_json, write_arrays, write_json
from palinode.models import Diffuser, to_model
from palinode.text_pretraining import encoded


def of_captions(model: Diffuser, world: World, target: str, strata: Strata, settings, key: tuple) -> ConceptData:
    """Pictures are rendered anew and encoded. settings: kept, pairs, traces (how many of each), guidance, steps."""
    generator = seeds.generator(*key, "pictures")
    scenes = Scenes.draw(seen_pairs(list(world.concepts), {target}), settings.kept, generator)
    captions = [scenes.caption(i, world, generator) for i in range(settings.kept)]
    x = encoded(model, scenes.render(world, generator))
    chosen = torch.randint(len(strata.given), (settings.pairs,), generator=generator).tolist()
    pairs = [strata.given[i] for i in chosen]
    shown = _scenes([one for one, _ in pairs], world, generator)
    a = encoded(model, shown.render(world, generator))
    texts = [tuple(caption.text for caption in both) for both in pairs]
    return _assembled(model, x, captions, a, texts, settings, key)


def of_classes(
    model: Diffuser, images: np.ndarray, labels: np.ndarray, target: int, anchor: int, settings, key: tuple
) -> ConceptData:
    """Pictures are those of the data set, uint8 [N, H, W, C]. settings: as for captions."""
    generator = seeds.generator(*key, "pictures")

    def some(among: np.ndarray, count: int) -> np.ndarray:
        return among[torch.randint(len(among), (count,), generator=generator).numpy()]

    kept = some(np.flatnonzero(labels != target), settings.kept)
    shown = some(np.flatnonzero(labels == target), settings.pairs)
    pairs = [(target, anchor)] * settings.pairs
    return _assembled(
        model, to_model(images[kept]), labels[kept].tolist(), to_model(images[shown]), pairs, settings, key
    )


def _assembled(model, x: Tensor, shown: list, a: Tensor, pairs: list[tuple], settings, key: tuple) -> ConceptData:
    prompts = list(dict.fromkeys([model.nothing, *shown, *(one for both in pairs for one in both)]))
    index = {prompt: i for i, prompt in enumerate(prompts)}
    targets, anchors = ([both[k] for both in pairs] for k in (0, 1))
    anchor_key, target_key = ((key[0], f"{key[1]} {role}") for role in ("anchor", "target"))  # not the noise of samples
    m, _, _ = conditional_sampling.trace(model, anchors, anchor_key, settings.guidance, settings.steps)
    traced = targets[: settings.traces]
    _, z, times = conditional_sampling.trace(model, traced, target_key, settings.guidance, settings.steps)

    def numbers(some: list) -> Tensor:
        return torch.tensor([index[prompt] for prompt in some])

    return ConceptData(prompts, x, numbers(shown), a, m, numbers(targets), numbers(anchors), z, numbers(traced), times)


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


def save(data: ConceptData, folder: Path) -> None:
    """arrays.npz and prompts.json, atomically."""
    with atomic(folder) as temporary:
        write_json(temporary / "prompts.json", {"prompts": data.prompts})
        arrays = {f.name: getattr(data, f.name).numpy() for f in dataclasses.fields(data) if f.name != "prompts"}
        write_arrays(temporary / "arrays.npz", arrays)


def load(folder: Path) -> ConceptData:
    """What `save` wrote."""
    with np.load(folder / "arrays.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return ConceptData(prompts=read_json(folder / "prompts.json")["prompts"], **tensors)
