"""Measure the base of a task of memorised prompts, as `unlearn_prompts` measures rows: evaluate_prompts.py TASK ROW."""

from pathlib import Path

from palinode.io import write_text
from palinode.settings import read
from palinode.stage import cell, device, main


def run(task: str, row: str) -> None:
    out, folder, settings = cell(task, row, 0) / "evaluation", Path("out/data") / task, read(f"evaluate-prompts-{task}")
    from palinode import text_to_image
    from palinode.data.scenes import World
    from palinode.memorization import prompt_data, prompt_metrics
    from palinode.memorization.prompt_looks import Artist

    data, world = prompt_data.load(folder), World.read()
    if data.reason:
        write_text(out / "absent.txt", f"{data.reason}\n")
        return
    artist = Artist(text_to_image.load(folder / "base", device()), settings)
    aside = artist.ordinary(world), artist.others(world)
    followed = [prompt_metrics.Followed({0: subject.start}, *aside) for subject in data.subjects]
    prompt_metrics.write(out, data, followed, world, folder / "judge", settings)


if __name__ == "__main__":
    main(run)
