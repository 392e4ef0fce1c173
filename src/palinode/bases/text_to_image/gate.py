"""Refuse a text-to-image base that cannot draw, or has not memorized what it should have."""

from palinode.bases import caption_checks, caption_sheets
from palinode.classifiers import storage
from palinode.classifiers.scene_judge import SceneJudge
from palinode.core.contact_sheet import write_png
from palinode.core.errors import Absent, UserError
from palinode.core.io import atomic, write_json
from palinode.core.work import Work
from palinode.data.scenes import EmojiCorpus
from palinode.models import text_to_image
from palinode.params.stage_settings import GateText
from palinode.sampling import prompted


def run(work: Work) -> None:
    settings = work.settings(GateText)
    limits = settings.gate
    if limits is None:
        raise Absent(settings.reason)
    _, data, model_folder, judge_folder = work.inputs
    corpus = EmojiCorpus.read(data)
    key = (settings.root_seed, settings.name)
    with work.scratch() as scratch:
        model = text_to_image.load(model_folder, work.device)
        judge = storage.load(judge_folder, SceneJudge)
        requests = caption_checks.requests(corpus, key)
        prompts = [request.prompt for request in requests]
        images = prompted.draw(model, prompts, key, limits.guidance, limits.steps, scratch)
        predictions = caption_checks.predict(images, judge)
        groups = caption_checks.measure(images, requests, corpus, predictions)
        for group, values in groups.items():
            shares = ", ".join(f"{what} {v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for what, v in values.items())
            print(f"{work.name}: {group}: {shares} of {max(v['n'] for v in values.values())}")
        problem = caption_checks.problem(groups, limits)
        if problem:
            raise UserError(f"{work.name}: {problem}")
        with atomic(work.outputs[0]) as out:
            metadata = {
                "groups": groups,
                "alignment": caption_checks.alignment(images, requests, judge, corpus, key),
                "confusion": caption_checks.confusion(requests, corpus, predictions),
                "limits": limits.model_dump(),
            }
            write_json(out / "gate.json", metadata)
            for name, picture in caption_sheets.sheets(images, requests, corpus).items():
                write_png(out / f"{name}.png", picture)
