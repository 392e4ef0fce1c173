"""Draw samples of one cell: sample.py TASK ROW SEED. Reference rows: base, oracle, real (training images, not
samples)."""

from pathlib import Path

from palinode.contact import sheet, write_png
from palinode.io import read_array, write_array, write_text
from palinode.settings import path, read
from palinode.stage import cell, device, main

REFERENCES = ("base", "oracle")


def run(task: str, row: str, seed: str) -> None:
    name, out = f"sample-{task}", cell(task, row, seed) / "samples"
    settings = read(name)
    if row == "real":
        save(out, read_array(Path("out/data") / task / "retain.npy")[: settings.count])
        return
    from palinode.models import absent

    folder = Path("models") / task / row if row in REFERENCES else cell(task, row, seed) / "model"
    reason = absent(folder)
    if reason:
        write_text(out / "absent.txt", f"{reason}\n")
        return
    from palinode import models, sampling
    from palinode.scratch import Scratch

    where = device()
    if sampling.is_worker():
        model = models.load(folder, sampling.worker_device(where), settings.precision)
        sampling.work(model, (settings.root_seed, task), settings.count, settings)
        return
    with Scratch(f"{name}-{row}-{seed}", [path(name), folder]) as scratch:
        sampling.share_work(scratch)
        model = models.load(folder, where, settings.precision)
        label = f"sample {row}@{task} seed {seed}"
        save(out, sampling.sample_all(model, (settings.root_seed, task), settings.count, settings, scratch, label))


def save(out: Path, images) -> None:
    """The array, and a sheet of the first images to look at."""
    write_array(out / "samples.npy", images)
    write_png(out / "contact.png", sheet(images[:256]), scale=2)


if __name__ == "__main__":
    main(run)
