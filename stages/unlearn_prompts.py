"""Forget each memorised prompt of a task with a model of its own, and measure it: unlearn_prompts.py TASK ROW SEED."""

from contextlib import ExitStack
from pathlib import Path

from palinode.io import write_json, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main


def run(task: str, row: str, seed: str) -> None:
    name, out, folder = f"unlearn-prompts-{task}-{row}", cell(task, row, seed), Path("out/data") / task
    settings, where = read(name), device()
    from palinode import models, text_to_image
    from palinode.data.scenes import World
    from palinode.memorization import prompt_data, prompt_metrics, prompt_unlearning
    from palinode.scratch import Scratch
    from palinode.training import write_history

    data, world, followed = prompt_data.load(folder), World.read(), []
    if data.reason:
        write_text(out / "evaluation/absent.txt", f"{data.reason}\n")
        write_history(out / "training.csv", [{"step": 0}])
        write_json(out / "cost.json", {"forward": 0, "backward": 0, "steps": 0})
        return
    model = text_to_image.load(folder / "base", where, settings.training.precision)
    models.train_only(model, settings.trainable)
    base = {key: value.clone() for key, value in model.net.state_dict().items()}
    with ExitStack() as finished:  # so that what a killed run finished is kept until the cell is complete
        for i, subject in enumerate(data.subjects):
            inputs = [path(name), folder / "base", folder / "prompts.json", folder / "arrays.npz"]
            scratch = finished.enter_context(Scratch(f"{name}-{seed}-{i}", inputs))
            model.net.load_state_dict(base)
            key = (settings.root_seed, f"{task} {subject.prompt.text}", "unlearn", seed)
            label = f"{row}@{task} seed {seed}, prompt {i + 1}"
            made = (model, subject, settings, key, world, scratch, label)
            followed.append(prompt_unlearning.kept(scratch.folder, lambda made=made: prompt_unlearning.forget(*made)))
        prompt_metrics.write(out / "evaluation", data, followed, world, folder / "judge", settings)
        steps, lines = settings.training.steps, [(i, line) for i, it in enumerate(followed) for line in it.history]
        write_history(out / "training.csv", [line | {"step": i * steps + line["step"]} for i, line in lines])
        total = {way: sum(it.passes[way] for it in followed) for way in followed[0].passes}
        write_json(out / "cost.json", total | {"steps": steps * len(followed)})


if __name__ == "__main__":
    main(run)
