"""Choose memorized prompts and split their pictures into what to forget and what to retain."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from palinode.core import seeds
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.estimate import share
from palinode.core.images import to_model
from palinode.core.io import atomic, read_json
from palinode.core.work import Work
from palinode.data.neighbours import nearest_rows
from palinode.data.prompt_lists import Prompt
from palinode.memorization import ground_truth, mitigation, roc, splitting
from palinode.memorization.ground_truth import GroundTruth
from palinode.memorization.prompt_sampler import PromptSampler
from palinode.models import text_to_image
from palinode.params.stage_settings import PreparePrompts
from palinode.tasks.prompts import comparisons, targets
from palinode.tasks.prompts.comparisons import Comparison, Comparisons
from palinode.tasks.prompts.targets import MemorizedPrompt, PromptFacts, TrainingTarget

SHOWN = 24  # pictures of a cluster on the contact sheet
GREY = 128  # behind a cluster of fewer


@dataclass(frozen=True)
class Split:
    """A prompt that counts: for training, for comparison, its pictures uint8 [N, H, W, C], which are memorized [N]."""

    target: TrainingTarget
    comparison: Comparison
    images: np.ndarray
    memorized: np.ndarray


def run(work: Work, task: str) -> None:
    settings = work.settings(PreparePrompts)
    detect = work.input("detect")
    listed, scores = roc.read_scores(detect / "scores.csv")
    threshold, reason = _find_threshold(settings, detect)
    truth = ground_truth.load(
        settings.ground_truth,
        work.input("judge"),
        settings.real,
        (settings.root_seed, settings.name),
        settings.sscd,
    )
    with work.scratch() as scratch:
        model = text_to_image.load(work.input("base"), work.device)
        sampler = PromptSampler(
            model, settings.root_seed, settings.name, settings.sample, settings.probe_steps, scratch
        )
        order: list[int] = []
        splits: list[Split] = []
        refused: list[dict] = []
        if threshold is not None:
            values = scores[mitigation.SCORE]
            order = splitting.rank_flagged(values, threshold)
            splits, refused = choose(sampler, settings, listed, order, values, truth)
            reason = "" if splits else f"none of the {len(refused)} flagged prompts that were tried counts"
        starts = [images for split in splits for images in split.comparison.start.pictures]
        texts = [split.target.prompt.text for split in splits]
        controls = truth.control_prompts(listed, order, texts, settings.sample.ordinary)
        ordinary = np.stack([sampler.draw(controls.ordinary, use) for use in ("ordinary", "ordinary again")])
        facts = PromptFacts(
            prompts=[split.target.prompt for split in splits],
            refused=refused,
            reason=reason,
            threshold=threshold,
            controls=controls,
        )
        compared = Comparisons(
            prompts=[split.comparison for split in splits],
            ordinary=ordinary,
            least_quality=truth.quality.least_quality(starts),
        )
        with atomic(work.outputs[0]) as folder:
            folder.mkdir(parents=True)
            targets.save(folder, facts, [split.target for split in splits])
            comparisons.save(folder, compared)
            if splits:
                write_png(folder / "clusters.png", draw_clusters(splits))
    counts = f"{len(splits)} prompts, {len(refused)} refused"
    print(f"{task}: {counts}; quality of at least {compared.least_quality:.2f}. {reason}")


def _find_threshold(settings: PreparePrompts, detect: Path) -> tuple[float | None, str]:
    """(the score from which on a prompt is flagged, or why there is none)."""
    held = read_json(detect / "metrics.json")["scores"].get(mitigation.SCORE, {}).get("held_out", {})
    threshold = settings.choose.threshold or held.get("threshold")
    reason = held.get("reason", f"{mitigation.SCORE} was not measured")
    return threshold, "" if threshold else reason


def choose(
    sampler: PromptSampler,
    settings: PreparePrompts,
    listed: list[Prompt],
    order: list[int],
    scores: np.ndarray,
    truth: GroundTruth,
) -> tuple[list[Split], list[dict]]:
    """(the prompts that count, refused ones). order: numbers of the flagged prompts, the highest score first."""
    splits: list[Split] = []
    refused: list[dict] = []
    choice = settings.choose
    own = [i for i in order if find_quarter(listed[i].text) in choice.quarters]
    for i in own[choice.skip : choice.skip + choice.among]:
        if len(splits) == choice.count:
            break
        result = try_prompt(sampler, settings, listed[i], float(scores[i]), truth)
        if isinstance(result, str):
            refused.append(listed[i]._asdict() | {"score": float(scores[i]), "reason": result})
            print(f"{listed[i].text!r}: {result}")
        else:
            splits.append(result)
            prompt = result.target.prompt
            print(f"{prompt.text!r} as {prompt.modified!r}: {prompt.memorized['value']:.0%} memorized")
    return splits, refused


def find_quarter(prompt: str) -> int:
    """Which of four parts of all prompts it belongs to, 0 to 3, by a hash of its text."""
    return seeds.derive("quarter", prompt) % 4


@torch.no_grad()
def try_prompt(
    sampler: PromptSampler, settings: PreparePrompts, prompt: Prompt, score: float, truth: GroundTruth
) -> Split | str:
    """A prompt's pictures, split in two; or why the prompt does not count."""
    limits = settings.split
    low, high = limits.share_range
    original = sampler.draw([prompt.text] * settings.sample.count, f"reference {prompt.text}")
    reference = original[splitting.find_medoid(original)]
    picture = truth.match(original, reference)
    if isinstance(picture, str):
        return picture

    def copies(images: np.ndarray) -> np.ndarray:
        return truth.copies(images, picture, reference)

    tried: list[list] = []
    modified: str | None = str(sampler.model.null_prompt)
    unprompted = limits.rule == "unprompted"
    if not unprompted:
        modified, tried = search(sampler, settings, prompt.text, truth, copies)
    if modified is None:
        shares = ", ".join(f"{part:.0%}" for part in sorted({part for _, part in tried}))
        return f"none of {len(tried)} edits gives a share of copies from {low:.0%} to {high:.0%}, but {shares}"
    prompts = [modified] * limits.images
    if unprompted:
        prompts[::2] = [prompt.text] * len(prompts[::2])
    images = sampler.draw(prompts, f"split {prompt.text}")
    clusters = splitting.cluster(images, reference)
    if isinstance(clusters, str):
        return clusters
    memorized = clusters.memorized(images)
    if not low <= memorized.mean() <= high:
        return f"2-means calls {memorized.mean():.0%} of its pictures memorized, wanted are {low:.0%} to {high:.0%}"
    agreeing = int((memorized == copies(images)).sum())
    if agreeing < limits.agree * len(images):
        agreed = f"{agreeing / len(images):.0%} of its pictures, wanted are {limits.agree:.0%}"
        return f"2-means and {truth.copy_metric} agree on {agreed}"
    chosen = MemorizedPrompt(
        text=prompt.text,
        kind=prompt.kind,
        score=score,
        modified=modified,
        trained_on=prompt.text if unprompted else modified,
        picture=picture,
        edits=tried,
        memorized=share(int(memorized.sum()), len(images)),
        agrees=share(agreeing, len(images)),
    )
    latents = sampler.model.encode_all(to_model(images))
    retain = latents[~memorized]
    forget = latents[memorized]
    nearest, _ = nearest_rows(retain.numpy(), forget.numpy(), settings.neighbours)
    target = TrainingTarget(chosen, retain, forget, torch.from_numpy(nearest))
    comparison = Comparison(chosen, clusters, reference, sampler.snapshot(chosen.versions))
    return Split(target, comparison, images, memorized)


def search(
    sampler: PromptSampler,
    settings: PreparePrompts,
    prompt: str,
    truth: GroundTruth,
    copies: Callable[[np.ndarray], np.ndarray],
) -> tuple[str | None, list[list]]:
    """(the modified prompt by the rule of `splitting`, None if none serves; [[edit, share of copies]] of all tried)."""
    limits = settings.split
    generator = seeds.generator(settings.root_seed, settings.name, "edits", prompt)
    words = truth.words(sampler.model.tokenizer)
    shorter = splitting.shorten(prompt)[: limits.edits]
    longer = splitting.lengthen(prompt, words, limits.edits - len(shorter), generator)
    tried: list[list] = []
    for group in (shorter, longer):
        if not group:
            continue
        drawn = sampler.draw([text for text in group for _ in range(limits.trial)], f"edits {prompt}")
        shares = copies(drawn).reshape(len(group), limits.trial).mean(1).tolist()
        tried += [list(pair) for pair in zip(group, shares, strict=True)]
        chosen = splitting.choose_share(shares, limits.share_range)
        if chosen is not None:
            return group[chosen], tried
    return None, tried


def draw_clusters(splits: list[Split]) -> np.ndarray:
    """One line a cluster, the memorized one of each prompt first; a short one ends in grey. uint8 [h, w, 3]."""
    lines = []
    for split in splits:
        for images in (split.images[split.memorized][:SHOWN], split.images[~split.memorized][:SHOWN]):
            rest = np.full((SHOWN - len(images), *split.images.shape[1:]), GREY, np.uint8)
            lines.append(np.concatenate([images, rest]))
    return sheet(np.concatenate(lines), SHOWN)
