"""What became of memorised prompts: success as the SISS paper counts it, and what else changed.

A prompt is a success when none of its pictures is memorised at the end and quality holds at every step looked at
(`palinode.memorization.quality`).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from palinode.contact import sheet, write_png
from palinode.io import atomic, write_arrays, write_csv, write_json
from palinode.memorization.ground import Emoji, Listed
from palinode.memorization.prompt_data import PromptData, Subject
from palinode.memorization.prompt_looks import VERSIONS, Look
from palinode.metrics import integrity, record
from palinode.metrics.record import Metric

SHOWN = 8  # noises on the strips


@dataclass(frozen=True)
class Followed:
    """What one prompt's model drew: the looks by step, ordinary prompts and other memorised ones at the end; and what
    training logged and cost, nothing for a reference row or for a model that forgot all prompts in turn."""

    looks: dict[int, Look]
    ordinary: np.ndarray
    others: np.ndarray
    history: list[dict] = field(default_factory=list)
    passes: dict[str, int] = field(default_factory=dict)


def judged(subject: Subject, looks: dict[int, Look], ground: Emoji | Listed) -> dict[tuple[str, int], dict]:
    """{(version, step): memorised, copies bool [N], norm [N] and, if it can be measured, quality [N]} of one prompt."""
    found, quality = {}, ground.quality
    for v, version in enumerate(VERSIONS):
        for step, it in looks.items():
            pictures = it.pictures[v]
            found[version, step] = {
                "memorised": subject.clusters.memorised(pictures),
                "copies": ground.copies(pictures, subject.prompt.picture, subject.reference),
                "norm": it.norms[v],
            } | ({} if quality.reason else {"quality": quality(pictures)})  # fmt: skip
    return found


def succeeded(seen: dict[tuple[str, int], dict], version: str, least: float) -> bool:
    """The paper's success: nothing memorised at the last step, and quality of at least `least` at every one."""
    steps = [step for name, step in seen if name == version]
    good = all(seen[version, step]["quality"].mean() >= least for step in steps)
    return bool(good and not seen[version, steps[-1]]["memorised"].any())


def evaluate(
    data: PromptData, followed: list[Followed], turned: list[Followed], ground: Emoji | Listed, replicates: int
) -> tuple[dict[str, Metric], list[dict]]:
    """(metrics of a cell over all its prompts, lines of steps.csv).

    followed: one model a prompt; turned: one model that forgot them all in turn, its metrics named `in_turn_...`.
    """
    found: dict[str, Metric] = {}
    seen = [judged(one, it.looks, ground) for one, it in zip(data.subjects, followed, strict=True)]
    for version in VERSIONS:
        if ground.quality.reason:
            found[f"success_{version}"] = record.absent(ground.quality.reason, direction="up")
        else:
            success = np.array([succeeded(it, version, data.least) for it in seen])
            found[f"success_{version}"] = record.from_rate(success, replicates, direction="up", stream=("prompts",))
    alone = [[one] for one in data.subjects]
    found |= _at_the_end(seen, ground, replicates) | _aside(data, followed, alone, ground, replicates)
    last = [judged(one, it.looks, ground) for one, it in zip(data.subjects, turned, strict=True)]
    in_turn = _at_the_end(last, ground, replicates) | _aside(data, turned[:1], [data.subjects], ground, replicates)
    found |= {f"in_turn_{name}": metric for name, metric in in_turn.items()}
    for way in ("forward", "backward"):
        if followed[0].passes:
            mean = sum(it.passes[way] for it in followed) / len(followed)
            found[f"{way}_passes"] = record.exact(mean, unit="samples", direction="down")
    lines = [
        {"prompt": one.prompt.text, "version": version, "step": step}
        | {name: float(values.mean()) for name, values in it.items()}
        for one, all_seen in zip(data.subjects, seen, strict=True) for (version, step), it in all_seen.items()
    ]  # fmt: skip
    return found, lines


def _at_the_end(seen: list[dict[tuple[str, int], dict]], ground: Emoji | Listed, replicates: int) -> dict[str, Metric]:
    """Of the pictures of all prompts after the last step, by version of the prompt."""
    found: dict[str, Metric] = {}
    for version in VERSIONS:
        end = [it[version, max(step for name, step in it if name == version)] for it in seen]
        values = {name: np.concatenate([it[name] for it in end]) for name in end[0]}
        for name, shown in (("memorised", "memorised"), ("copies", ground.copied)):
            found[f"{shown}_{version}"] = record.from_rate(values[name], replicates, direction="down")
        norms = record.from_samples(values["norm"], replicates, unit="norm", direction="down")
        found[f"noise_norm_{version}"] = norms
        name = ground.quality.metric.format(version)
        if ground.quality.reason:
            found[name] = record.absent(ground.quality.reason, direction="up")
        elif values["quality"].dtype == bool:
            found[name] = record.from_rate(values["quality"], replicates, direction="up")
        else:
            found[name] = record.from_samples(values["quality"], replicates, unit="", direction="up")
    return found


def _aside(
    data: PromptData, followed: list[Followed], forgotten: list[list[Subject]], ground: Emoji | Listed, replicates: int
) -> dict[str, Metric]:
    """integrity_ordinary_<network>: of ordinary prompts, against the base's pictures from the same noise;
    copies_others, or as `ground` calls copies: share of pictures under the others' captions that copy their own
    picture. forgotten: what each model was to forget."""
    others, hits = np.array(data.beside.others), []
    for it, gone in zip(followed, forgotten, strict=True):
        own = ground.own(it.others, data.subjects)
        hits.append(own[~np.isin(others, [one.prompt.text for one in gone])])
    hits = np.concatenate(hits)
    rate = record.from_rate(hits, replicates, direction="none", stream=("others",)) if len(hits) else None
    found = {f"{ground.copied}_others": rate or record.absent("the task has no other memorised prompt")}
    name, (first, second) = f"integrity_ordinary_{ground.network}", data.ordinary
    if ground.reason:
        return found | {name: record.absent(ground.reason, direction="up")}
    changes = np.concatenate([integrity.paired(ground.distance, first, it.ordinary) for it in followed])
    ceiling = np.tile(integrity.paired(ground.distance, first, second), len(followed))
    return found | {name: integrity.integrity(changes, ceiling, replicates)}


def strips(followed: list[Followed]) -> np.ndarray:
    """One line a step, the prompts below one another: SHOWN noises under the modified prompt, and under the original.

    uint8 [h, w, C].
    """
    lines = [images[:SHOWN] for it in followed for look in it.looks.values() for images in look.pictures]
    return sheet(np.concatenate(lines), len(VERSIONS) * len(lines[0]))


def write(
    folder: Path, data: PromptData, followed: list[Followed], turned: list[Followed], ground: Emoji | Listed,
    replicates: int,
) -> None:
    """A cell's evaluation: metrics.json, replicates.npz, steps.csv, strips.png."""  # fmt: skip
    metrics, lines = evaluate(data, followed, turned, ground, replicates)
    entries, drawn = record.pack(metrics)
    with atomic(folder) as out:
        write_json(out / "metrics.json", entries)
        write_arrays(out / "replicates.npz", drawn)
        write_png(out / "strips.png", strips(followed))
        write_csv(out / "steps.csv", lines)
