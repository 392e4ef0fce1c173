"""What a task of memorised prompts works on: the prompts, and their pictures to forget and to keep."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.contact import sheet, write_png
from palinode.data.scenes import World
from palinode.io import read_json, write_arrays, write_json
from palinode.memorization import split
from palinode.memorization.prompt_looks import Artist, Look
from palinode.memorization.prompts import Prompt
from palinode.metrics.record import share
from palinode.models import to_model
from palinode.text_gate import COPY, copy_distance
from palinode.text_pretraining import encoded

SHOWN = 24  # pictures of a cluster on the contact sheet


@dataclass(frozen=True)
class Forgotten:
    """A prompt that counts. told: what the model is told in training; picture: index of the fixed picture it copies;
    edits: [[modified prompt, share of copies]]; memorised: share of the pictures by 2-means; agrees: share of them on
    which pixel copies agree."""

    text: str
    kind: str
    score: float
    modified: str
    told: str
    picture: int
    edits: list
    memorised: dict
    agrees: dict

    @property
    def versions(self) -> list[str]:
        """In the order of `prompt_looks.VERSIONS`."""
        return [self.modified, self.text]


@dataclass(frozen=True)
class Subject:
    """A prompt with its data: latents to keep and to forget float32 [N, C, h, w], the clusters, the look at step 0."""

    prompt: Forgotten
    retain: Tensor
    forget: Tensor
    clusters: split.Clusters
    start: Look


@dataclass(frozen=True)
class PromptData:
    """A task: its subjects, refused prompts [{text, kind, score, reason}], the reason if there is no subject, the least
    realism that counts as quality, ordinary pictures of the base from two noises uint8 [2, N, H, W, C]."""

    subjects: list[Subject]
    refused: list[dict]
    reason: str
    least: float
    ordinary: np.ndarray


def copies(images: np.ndarray, world: World, picture: int | np.ndarray) -> np.ndarray:
    """Whether each image copies the fixed picture with this index (one, or one an image), by pixel distance, [N]."""
    return copy_distance(images, world)[np.arange(len(images)), picture] < COPY


@torch.no_grad()
def try_prompt(
    artist: Artist, prompt: Prompt, score: float, world: World
) -> tuple[Subject, np.ndarray, np.ndarray] | str:
    """(subject, its pictures uint8 [N, H, W, C], which are memorised [N]), or why the prompt does not count."""
    settings, limits = artist.settings, artist.settings.split
    low, high = limits.share
    original = artist.draw([prompt.text] * settings.sample.count, f"reference {prompt.text}")
    reference = original[split.medoid(original)]
    distance = copy_distance(reference[None], world)[0]
    picture = int(distance.argmin())
    if distance[picture] >= COPY:
        return f"it draws no copy of a fixed picture: the nearest is {distance[picture]:.2f} away, a copy within {COPY}"
    unprompted = limits.rule == "unprompted"
    modified, tried = (artist.model.nothing, []) if unprompted else search(artist, prompt.text, world, picture)
    if modified is None:
        shares = ", ".join(f"{part:.0%}" for part in sorted({part for _, part in tried}))
        return f"none of {len(tried)} edits gives a share of copies from {low:.0%} to {high:.0%}, but {shares}"
    asked = [modified] * limits.images
    if unprompted:
        asked[::2] = [prompt.text] * len(asked[::2])
    images = artist.draw(asked, f"split {prompt.text}")
    clusters = split.two_means(images, reference)
    if isinstance(clusters, str):
        return clusters
    forget = clusters.memorised(images)
    if not low <= forget.mean() <= high:
        return f"2-means calls {forget.mean():.0%} of its pictures memorised, wanted are {low:.0%} to {high:.0%}"
    agreeing = int((forget == copies(images, world, picture)).sum())
    if agreeing < limits.agree * len(images):
        agreed = f"{agreeing / len(images):.0%} of its pictures, wanted are {limits.agree:.0%}"
        return f"2-means and pixel copies agree on {agreed}"
    found = Forgotten(
        prompt.text, prompt.kind, score, modified, prompt.text if unprompted else modified, picture, tried,
        memorised=share(int(forget.sum()), len(images)), agrees=share(agreeing, len(images)),
    )  # fmt: skip
    latents = encoded(artist.model, to_model(images))
    subject = Subject(found, latents[~forget], latents[forget], clusters, artist.look(found.versions))
    return subject, images, forget


def search(artist: Artist, prompt: str, world: World, picture: int) -> tuple[str | None, list[list]]:
    """(the modified prompt by the rule of `palinode.memorization.split`, None if none serves; [[edit, share of
    copies]] of all that were tried)."""
    settings, limits = artist.settings, artist.settings.split
    generator = seeds.generator(settings.root_seed, settings.task, "edits", prompt)
    shorter, tried = split.shortened(prompt)[: limits.edits], []
    for group in (shorter, split.lengthened(prompt, world.words, limits.edits - len(shorter), generator)):
        if not group:
            continue
        drawn = artist.draw([text for text in group for _ in range(limits.trial)], f"edits {prompt}")
        shares = copies(drawn, world, picture).reshape(len(group), limits.trial).mean(1).tolist()
        tried += [list(it) for it in zip(group, shares, strict=True)]
        chosen = split.best(shares, limits.share)
        if chosen is not None:
            return group[chosen], tried
    return None, tried


def choose(
    artist: Artist, asked: list[Prompt], scores: np.ndarray, threshold: float, world: World, say: Callable = print
) -> tuple[list[tuple], list[dict]]:
    """(what `try_prompt` made of those that count, refused ones), from the flagged prompts in the order of scores."""
    found, refused, choice = [], [], artist.settings.choose
    for i in split.flagged(scores, threshold)[choice.skip : choice.skip + choice.among]:
        if len(found) == choice.count:
            break
        result = try_prompt(artist, asked[i], float(scores[i]), world)
        if isinstance(result, str):
            refused.append(asked[i]._asdict() | {"score": float(scores[i]), "reason": result})
            say(f"{asked[i].text!r}: {result}")
        else:
            found.append(result)
            prompt = result[0].prompt
            say(f"{prompt.text!r} as {prompt.modified!r}: {prompt.memorised['value']:.0%} memorised")
    return found, refused


def contact(made: list[tuple]) -> np.ndarray:
    """One line a cluster, the memorised one of each prompt first; a short one ends in grey. uint8 [h, w, 3]."""
    lines = []
    for _, images, forget in made:
        for some in (images[forget][:SHOWN], images[~forget][:SHOWN]):
            lines.append(np.concatenate([some, np.full((SHOWN - len(some), *images.shape[1:]), 128, np.uint8)]))
    return sheet(np.concatenate(lines), SHOWN)


def save(data: PromptData, made: list[tuple], folder: Path) -> None:
    """prompts.json, arrays.npz and, where a prompt counts, clusters.png, into an existing folder."""
    arrays = {"ordinary": data.ordinary}
    for i, it in enumerate(data.subjects):
        arrays |= {f"retain_{i}": it.retain.numpy(), f"forget_{i}": it.forget.numpy()}
        arrays |= {f"centres_{i}": it.clusters.centres, f"start_{i}": it.start.pictures, f"norms_{i}": it.start.norms}
    facts = {key: getattr(data, key) for key in ("refused", "reason", "least")}
    write_json(folder / "prompts.json", facts | {"prompts": [asdict(it.prompt) for it in data.subjects]})
    write_arrays(folder / "arrays.npz", arrays)
    if made:
        write_png(folder / "clusters.png", contact(made))


def load(folder: Path) -> PromptData:
    """What `save` wrote."""
    facts = read_json(folder / "prompts.json")
    with np.load(folder / "arrays.npz") as arrays:
        subjects = [
            Subject(
                Forgotten(**entry), torch.from_numpy(arrays[f"retain_{i}"]), torch.from_numpy(arrays[f"forget_{i}"]),
                split.Clusters(arrays[f"centres_{i}"]), Look(arrays[f"start_{i}"], arrays[f"norms_{i}"]),
            )
            for i, entry in enumerate(facts.pop("prompts"))
        ]  # fmt: skip
        return PromptData(subjects, ordinary=arrays["ordinary"], **facts)
