"""Refuse a text-to-image base that cannot draw, or has not memorized what it should have."""

from typing import Any

import numpy as np

from palinode.bases import caption_checks, caption_sheets, caption_variety
from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.contact_sheet import write_png
from palinode.core.errors import Absent, UserError
from palinode.core.io import atomic, write_json
from palinode.core.scratch import Scratch
from palinode.core.work import Work
from palinode.data.scenes import EmojiCorpus
from palinode.models import text_to_image
from palinode.models.text_to_image import TextToImage
from palinode.params.stage_settings import GateText
from palinode.sampling import prompted


def run(work: Work) -> None:
    settings = work.settings(GateText)
    limits = settings.gate
    if limits is None:
        raise Absent(settings.reason)
    _, data, model_folder, judge_folder = work.inputs
    corpus = EmojiCorpus.read(data, settings.corpus)
    sampler = settings.sampler
    key = (settings.root_seed, settings.name)
    with work.scratch() as scratch:
        model = text_to_image.load(model_folder, work.device)
        judge = storage.load(judge_folder, SceneJudge)
        requests = caption_checks.requests(corpus, key)
        prompts = [request.prompt for request in requests]
        images = prompted.draw(model, prompts, key, sampler.guidance, sampler.steps, scratch)
        predictions = caption_checks.predict(images, judge)
        groups = caption_checks.measure(images, requests, corpus, predictions)
        for group, values in groups.items():
            shares = ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items())
            print(f"{work.name}: {group}: {shares} of {max(v['n'] for v in values.values())}")
        problem = caption_checks.problem(groups, limits)
        varied: dict[str, Any] = {}
        if corpus.habits.varied:
            varied = _measure_variety(model, judge, corpus, settings, scratch)
            shown = ", ".join(f"{what} {v['value']:.2f} [{v['lo']:.2f}, {v['hi']:.2f}]" for what, v in varied.items())
            print(f"{work.name}: {shown}")
            problem = problem or caption_variety.problem(**varied, limits=limits)
        if problem:
            raise UserError(f"{work.name}: {problem}")
        with atomic(work.outputs[0]) as out:
            metadata = {
                "groups": groups,
                **varied,
                "alignment": caption_checks.alignment(images, requests, judge, corpus, key),
                "confusion": caption_checks.confusion(requests, corpus, predictions),
                "limits": limits.model_dump() | sampler.model_dump(),
            }
            write_json(out / "gate.json", metadata)
            for name, picture in caption_sheets.sheets(images, requests, corpus).items():
                write_png(out / f"{name}.png", picture)


def _measure_variety(
    model: TextToImage, judge: SceneJudge, corpus: EmojiCorpus, settings: GateText, scratch: Scratch
) -> dict[str, Any]:
    """{"variety", "edits"}, as `caption_variety` measures them."""
    key = (settings.root_seed, settings.name)
    sampler = settings.sampler

    def draw(prompts: list[str], use: str) -> np.ndarray:
        place = scratch.part(use)
        return prompted.draw(
            model, prompts, (settings.root_seed, f"{settings.name} {use}"), sampler.guidance, sampler.steps, place
        )

    return {
        "variety": caption_variety.measure_variety(draw, judge, corpus, key),
        "edits": caption_variety.measure_edits(draw, corpus, key),
    }
