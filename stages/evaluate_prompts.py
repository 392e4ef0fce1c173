"""Measure a reference row of a task of prompts as `unlearn_prompts` measures rows: evaluate_prompts.py TASK ROW.

base: the model as it is; mitigated: the same weights, but every prompt is mitigated when the model is told it.
"""

from pathlib import Path

from palinode.io import write_text
from palinode.settings import read
from palinode.stage import cell, device, main


def run(task: str, row: str) -> None:
    out, folder, settings = cell(task, row, 0) / "evaluation", Path("out/data") / task, read(f"evaluate-prompts-{task}")
    from palinode import text_to_image
    from palinode.memorization import ground, mitigation, prompt_data, prompt_metrics
    from palinode.memorization.prompt_looks import Artist

    data = prompt_data.load(folder)
    if data.reason:
        write_text(out / "absent.txt", f"{data.reason}\n")
        return
    model, looks = text_to_image.load(folder / "base", device()), [subject.start for subject in data.subjects]
    if row == "mitigated":
        model = mitigation.Mitigating(model, data.threshold, settings)
    artist = Artist(model, settings)
    if row == "mitigated":
        looks = [artist.look(subject.prompt.versions) for subject in data.subjects]
    aside, known = artist.aside(data.beside), ground.of(settings.known, folder, settings)
    followed = [prompt_metrics.Followed({0: look}, *aside) for look in looks]
    prompt_metrics.write(out, data, followed, followed, known, settings.bootstrap)


if __name__ == "__main__":
    main(run)
