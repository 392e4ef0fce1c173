"""Forget each memorised prompt of a task with a model of its own, and measure it: unlearn_prompts.py TASK ROW SEED."""

from contextlib import ExitStack
from pathlib import Path

from palinode.io import write_csv, write_json, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main


def run(task: str, row: str, seed: str) -> None:
    name, out, folder = f"unlearn-prompts-{task}-{row}", cell(task, row, seed), Path("out/data") / task
    settings, where = read(name), device()
    from palinode import models, text_to_image
    from palinode.memorization import ground, prompt_data, prompt_metrics, prompt_unlearning
    from palinode.scratch import Scratch

    data, followed = prompt_data.load(folder), []
    if data.reason:
        write_text(out / "evaluation/absent.txt", f"{data.reason}\n")
        write_csv(out / "training.csv", [{"step": 0}])
        write_json(out / "cost.json", {"forward": 0, "backward": 0, "steps": 0})
        return
    model = text_to_image.load(folder / "base", where, settings.training.precision)
    models.train_only(model, settings.trainable)
    base = {key: value.clone() for key, value in model.net.state_dict().items()}
    with ExitStack() as finished:  # so that what a killed run finished is kept until the cell is complete

        def scratch(part: str) -> Scratch:
            inputs = [path(name), folder / "base", folder / "prompts.json", folder / "arrays.npz"]
            return finished.enter_context(Scratch(f"{name}-{seed}-{part}", inputs))

        keys = [(settings.root_seed, f"{task} {it.prompt.text}", "unlearn", seed) for it in data.subjects]
        label = f"{row}@{task} seed {seed}"
        places, turns = [scratch(f"{i}") for i in range(len(keys))], len(keys) > 1
        for i, (subject, key, here) in enumerate(zip(data.subjects, keys, places, strict=True)):
            model.net.load_state_dict(base)
            goes_on = turns and i == 0
            made = (model, subject, settings, key, data.beside, here, f"{label}, prompt {i + 1}", goes_on)
            followed.append(prompt_unlearning.kept(here.folder, lambda made=made: prompt_unlearning.forget(*made)))
        turned = followed
        if turns:
            places[1:] = [scratch(f"turn-{i}") for i in range(1, len(keys))]
            turned = prompt_unlearning.forget_in_turn(model, data, settings, keys, places, label)
        known = ground.of(settings.known, folder, settings)
        prompt_metrics.write(out / "evaluation", data, followed, turned, known, settings.bootstrap)
        steps, lines = settings.training.steps, [(i, line) for i, it in enumerate(followed) for line in it.history]
        write_csv(out / "training.csv", [line | {"step": i * steps + line["step"]} for i, line in lines])
        total = {way: sum(it.passes[way] for it in followed) for way in followed[0].passes}
        write_json(out / "cost.json", total | {"steps": sum(it.history[-1]["step"] + 1 for it in followed)})


if __name__ == "__main__":
    main(run)
