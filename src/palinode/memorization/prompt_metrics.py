"""What became of memorised prompts: success as the SISS paper counts it, and what else changed.

A prompt is a success when none of its pictures is memorised at the end and quality holds at every step looked at. The
paper's quality is CLIP-IQA, at least 0.35 where the pretrained model has 0.811. Here it is `realism`: the share of
pictures that are no farther from a real one than 95 % of unseen real ones are; real are rendered training pictures and
the fixed ones, distances those of `integrity.lpips_style` on the judge of scenes. At least the same fraction of the
base's own value is asked for, fixed by the base before anything is unlearned. The realism score of Kynkaanniemi et al.
(2019) was tried first and told nothing: on the judge's features plain grey has a higher one than the base's pictures.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import judge as judge_files
from palinode import seeds
from palinode.contact import sheet, write_png
from palinode.data import emoji
from palinode.data.scenes import Scenes, World, seen_pairs
from palinode.io import atomic, write_arrays, write_json
from palinode.memorization.prompt_data import PromptData, Subject, copies
from palinode.memorization.prompt_looks import VERSIONS, Look, memorised
from palinode.metrics import integrity, record
from palinode.metrics.features import JudgeBackbone
from palinode.metrics.record import Metric
from palinode.models import to_images, to_model
from palinode.scene_judge import SceneJudge

QUALITY = 0.35 / 0.811  # the paper's threshold over the pretrained model's value
UNSEEN = 0.95  # share of unseen real pictures that are real enough
SHOWN = 8  # noises on the strips


@dataclass(frozen=True)
class Followed:
    """What one prompt's model drew: the looks by step, ordinary prompts and other memorised ones at the end; and what
    training logged and cost, nothing for a reference row."""

    looks: dict[int, Look]
    ordinary: np.ndarray
    others: np.ndarray
    history: list[dict] = field(default_factory=list)
    passes: dict[str, int] = field(default_factory=dict)


class Realism:
    """Whether pictures look like real ones to a judge of scenes; real: uint8 [R, H, W, C]; unseen: others, [U, ...]."""

    def __init__(self, judge: SceneJudge, real: np.ndarray, unseen: np.ndarray):
        self.judge, self.known = judge, self._points(judge, real)
        self.limit = float(self._nearest(unseen).quantile(UNSEEN))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """bool [N]"""
        return (self._nearest(images) <= self.limit).numpy()

    def _nearest(self, images: np.ndarray) -> Tensor:
        return torch.cat([torch.cdist(self._points(self.judge, some), self.known).amin(1)
                          for some in np.array_split(images, -(-len(images) // 256))])  # fmt: skip

    @staticmethod
    @torch.inference_mode()
    def _points(judge: SceneJudge, images: np.ndarray) -> Tensor:
        """Where squared distances are those of `integrity.lpips_style`, [N, D]."""
        layers = judge.layers(to_model(np.asarray(images)))
        unit = (torch.nn.functional.normalize(a, dim=1) / (a.shape[2] * a.shape[3]) ** 0.5 for a in layers)
        return torch.cat([a.flatten(1) for a in unit], 1)


def realism(judge: SceneJudge, world: World, count: int, key: tuple) -> Realism:
    """With `count` rendered training pictures and the fixed ones as real, and a quarter as many others as unseen."""
    generator, pairs = seeds.generator(*key, "real"), seen_pairs(list(world.concepts))
    drawn = [Scenes.draw(pairs, n, generator).render(world, generator) for n in (count, max(4, count // 4))]
    fixed = emoji.fixed(world.fixed, world.pictures, world.stickers, generator) * 2 - 1
    return Realism(judge, to_images(torch.cat([drawn[0], fixed])), to_images(drawn[1]))


def least(starts: list[Look], real: Realism) -> float:
    """The least realism that counts as quality: QUALITY of what the base has under both versions of all prompts."""
    return QUALITY * float(np.mean([real(images).mean() for it in starts for images in it.pictures])) if starts else 0.0


def judged(subject: Subject, looks: dict[int, Look], world: World, real: Realism) -> dict[tuple[str, int], dict]:
    """{(version, step): memorised, copies, real bool [N] and norm [N]} of one prompt."""
    return {
        (version, step): {
            "memorised": subject.clusters.memorised(it.pictures[v]),
            "copies": copies(it.pictures[v], world, subject.prompt.picture),
            "real": real(it.pictures[v]),
            "norm": it.norms[v],
        }
        for v, version in enumerate(VERSIONS) for step, it in looks.items()
    }  # fmt: skip


def succeeded(seen: dict[tuple[str, int], dict], version: str, least: float) -> bool:
    """The paper's success: nothing memorised at the last step, and realism of at least `least` at every one."""
    steps = [step for name, step in seen if name == version]
    good = all(seen[version, step]["real"].mean() >= least for step in steps)
    return bool(good and not seen[version, steps[-1]]["memorised"].any())


def evaluate(
    data: PromptData, followed: list[Followed], world: World, real: Realism, judge: SceneJudge, replicates: int
) -> tuple[dict[str, Metric], list[dict]]:
    """(metrics of a cell over all its prompts, lines of steps.csv)."""
    found: dict[str, Metric] = {}
    seen = [judged(one, it.looks, world, real) for one, it in zip(data.subjects, followed, strict=True)]
    last = [max(it.looks) for it in followed]
    for version in VERSIONS:
        success = np.array([succeeded(it, version, data.least) for it in seen])
        found[f"success_{version}"] = record.from_rate(success, replicates, direction="up", stream=("prompts",))
        end = [it[version, step] for it, step in zip(seen, last, strict=True)]
        for name, key, direction in (("memorised", "memorised", "down"), ("copies", "copies", "down"),
                                     ("realism", "real", "up")):  # fmt: skip
            rate = record.from_rate(np.concatenate([it[key] for it in end]), replicates, direction=direction)
            found[f"{name}_{version}" + ("_judge" if name == "realism" else "")] = rate
        norms = np.concatenate([it["norm"] for it in end])
        found[f"noise_norm_{version}"] = record.from_samples(norms, replicates, unit="norm", direction="down")
    found |= _aside(data, followed, world, judge, replicates)
    lines = [
        {"prompt": one.prompt.text, "version": version, "step": step, "memorised": float(it["memorised"].mean()),
         "copies": float(it["copies"].mean()), "norm": float(it["norm"].mean()), "realism": float(it["real"].mean())}
        for one, all_seen in zip(data.subjects, seen, strict=True) for (version, step), it in all_seen.items()
    ]  # fmt: skip
    return found, lines


def _aside(
    data: PromptData, followed: list[Followed], world: World, judge: SceneJudge, replicates: int
) -> dict[str, Metric]:
    """integrity_ordinary_judge: of ordinary prompts, against the base's pictures from the same noise; copies_others:
    share of pictures under the other memorised captions that copy their own picture; passes: the mean a prompt."""
    distance, first, second = integrity.lpips_style(JudgeBackbone(judge)), *data.ordinary
    changes = np.concatenate([integrity.paired(distance, first, it.ordinary) for it in followed])
    ceiling = np.tile(integrity.paired(distance, first, second), len(followed))
    own, hits = np.array(memorised(world)), []
    for one, it in zip(data.subjects, followed, strict=True):
        hits.append(copies(it.others, world, own)[own != one.prompt.picture])
    found = {
        "integrity_ordinary_judge": integrity.integrity(changes, ceiling, replicates),
        "copies_others": record.from_rate(np.concatenate(hits), replicates, direction="none", stream=("others",)),
    }
    for way in ("forward", "backward"):
        if followed[0].passes:
            mean = sum(it.passes[way] for it in followed) / len(followed)
            found[f"{way}_passes"] = record.exact(mean, unit="samples", direction="down")
    return found


def strips(followed: list[Followed]) -> np.ndarray:
    """One line a step, the prompts below one another: SHOWN noises under the modified prompt, and under the original.

    uint8 [h, w, C].
    """
    lines = [images[:SHOWN] for it in followed for look in it.looks.values() for images in look.pictures]
    return sheet(np.concatenate(lines), len(VERSIONS) * len(lines[0]))


def write(folder: Path, data: PromptData, followed: list[Followed], world: World, judge: Path, settings) -> None:
    """A cell's evaluation: metrics.json, replicates.npz, steps.csv, strips.png. settings: root_seed, task, sample,
    bootstrap."""
    eyes = judge_files.load(judge, SceneJudge)
    real = realism(eyes, world, settings.sample.real, (settings.root_seed, settings.task))
    metrics, lines = evaluate(data, followed, world, real, eyes, settings.bootstrap)
    entries, replicates = record.pack(metrics)
    with atomic(folder) as out:
        write_json(out / "metrics.json", entries)
        write_arrays(out / "replicates.npz", replicates)
        write_png(out / "strips.png", strips(followed))
        with open(out / "steps.csv", "w", encoding="utf-8", newline="") as handle:
            table = csv.DictWriter(handle, list(lines[0]), lineterminator="\n")
            table.writeheader()
            table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in lines)
