"""What a task of memorised prompts works on: the prompts, and their pictures to forget and to keep."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import seeds
from palinode.contact import sheet, write_png
from palinode.io import read_json, write_arrays, write_json
from palinode.memorization import split
from palinode.memorization.ground import Beside, Emoji, Listed
from palinode.memorization.prompt_looks import Artist, Look
from palinode.memorization.prompts import Prompt
from palinode.metrics.record import share
from palinode.models import to_model
from palinode.text_pretraining import encoded

LATENTS = ("retain", "forget", "traced")
SHOWN = 24  # pictures of a cluster on the contact sheet


@dataclass(frozen=True)
class Forgotten:
    """A prompt that counts. told: what the model is told in training; picture: what `ground.match` says that it copies;
    edits: [[modified prompt, share of copies]]; memorised: share of the pictures by 2-means; agrees: share of them on
    which `ground.copies` agrees."""

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
    """A prompt with its data: latents to keep and to forget float32 [N, C, h, w], states of the base's own sampling
    under what the model is told in training [P, S, C, h, w], the clusters, the medoid of what the base draws under the
    prompt uint8 [H, W, C], the look at step 0."""

    prompt: Forgotten
    retain: Tensor
    forget: Tensor
    traced: Tensor
    clusters: split.Clusters
    reference: np.ndarray
    start: Look


@dataclass(frozen=True)
class PromptData:
    """A task: its subjects, refused prompts [{text, kind, score, reason}], the reason if there is no subject, the least
    quality that counts, the threshold of the score that flags prompts (None if there is none), prompts beside
    them, ordinary pictures of the base from two noises uint8 [2, N, H, W, C]."""

    subjects: list[Subject]
    refused: list[dict]
    reason: str
    least: float
    threshold: float | None
    beside: Beside
    ordinary: np.ndarray


@torch.no_grad()
def try_prompt(
    artist: Artist, prompt: Prompt, score: float, ground: Emoji | Listed
) -> tuple[Subject, np.ndarray, np.ndarray] | str:
    """(subject, its pictures uint8 [N, H, W, C], which are memorised [N]), or why the prompt does not count."""
    settings, limits = artist.settings, artist.settings.split
    low, high = limits.share
    original = artist.draw([prompt.text] * settings.sample.count, f"reference {prompt.text}")
    reference = original[split.medoid(original)]
    picture = ground.match(original, reference)
    if isinstance(picture, str):
        return picture

    def copies(images: np.ndarray) -> np.ndarray:
        return ground.copies(images, picture, reference)

    unprompted = limits.rule == "unprompted"
    modified, tried = (artist.model.nothing, []) if unprompted else search(artist, prompt.text, ground, copies)
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
    agreeing = int((forget == copies(images)).sum())
    if agreeing < limits.agree * len(images):
        agreed = f"{agreeing / len(images):.0%} of its pictures, wanted are {limits.agree:.0%}"
        return f"2-means and {ground.copied} agree on {agreed}"
    found = Forgotten(
        prompt.text, prompt.kind, score, modified, prompt.text if unprompted else modified, picture, tried,
        memorised=share(int(forget.sum()), len(images)), agrees=share(agreeing, len(images)),
    )  # fmt: skip
    latents = encoded(artist.model, to_model(images))
    kept, gone, traced = latents[~forget], latents[forget], artist.trace(found.told)
    subject = Subject(found, kept, gone, traced, clusters, reference, artist.look(found.versions))
    return subject, images, forget


def search(
    artist: Artist, prompt: str, ground: Emoji | Listed, copies: Callable[[np.ndarray], np.ndarray]
) -> tuple[str | None, list[list]]:
    """(the modified prompt by the rule of `palinode.memorization.split`, None if none serves; [[edit, share of
    copies]] of all that were tried)."""
    settings, limits = artist.settings, artist.settings.split
    generator = seeds.generator(settings.root_seed, settings.task, "edits", prompt)
    words = ground.words(artist.model.tokenizer)
    shorter, tried = split.shortened(prompt)[: limits.edits], []
    for group in (shorter, split.lengthened(prompt, words, limits.edits - len(shorter), generator)):
        if not group:
            continue
        drawn = artist.draw([text for text in group for _ in range(limits.trial)], f"edits {prompt}")
        shares = copies(drawn).reshape(len(group), limits.trial).mean(1).tolist()
        tried += [list(it) for it in zip(group, shares, strict=True)]
        chosen = split.best(shares, limits.share)
        if chosen is not None:
            return group[chosen], tried
    return None, tried


def choose(
    artist: Artist, asked: list[Prompt], order: list[int], scores: np.ndarray, ground: Emoji | Listed
) -> tuple[list[tuple], list[dict]]:
    """(what `try_prompt` made of those that count, refused ones). order: indices of the flagged prompts."""
    found, refused, choice = [], [], artist.settings.choose
    for i in order[choice.skip : choice.skip + choice.among]:
        if len(found) == choice.count:
            break
        result = try_prompt(artist, asked[i], float(scores[i]), ground)
        if isinstance(result, str):
            refused.append(asked[i]._asdict() | {"score": float(scores[i]), "reason": result})
            print(f"{asked[i].text!r}: {result}")
        else:
            found.append(result)
            prompt = result[0].prompt
            print(f"{prompt.text!r} as {prompt.modified!r}: {prompt.memorised['value']:.0%} memorised")
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
        arrays |= {f"{part}_{i}": getattr(it, part).numpy() for part in LATENTS}
        arrays |= {f"centres_{i}": it.clusters.centres, f"reference_{i}": it.reference}
        arrays |= {f"start_{i}": it.start.pictures, f"norms_{i}": it.start.norms}
    facts = {key: getattr(data, key) for key in ("refused", "reason", "least", "threshold")}
    listed = {"prompts": [asdict(it.prompt) for it in data.subjects], "beside": asdict(data.beside)}
    write_json(folder / "prompts.json", facts | listed)
    write_arrays(folder / "arrays.npz", arrays)
    if made:
        write_png(folder / "clusters.png", contact(made))


def load(folder: Path) -> PromptData:
    """What `save` wrote."""
    facts = read_json(folder / "prompts.json")
    with np.load(folder / "arrays.npz") as arrays:
        subjects = [
            Subject(
                Forgotten(**entry), *(torch.from_numpy(arrays[f"{part}_{i}"]) for part in LATENTS),
                split.Clusters(arrays[f"centres_{i}"]), arrays[f"reference_{i}"],
                Look(arrays[f"start_{i}"], arrays[f"norms_{i}"]),
            )
            for i, entry in enumerate(facts.pop("prompts"))
        ]  # fmt: skip
        beside = Beside(**facts.pop("beside"))
        return PromptData(subjects, beside=beside, ordinary=arrays["ordinary"], **facts)
