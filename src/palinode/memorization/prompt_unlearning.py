"""Data unlearning on a text-to-image model that is told one prompt: the methods of the family data, unchanged."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palinode import methods, seeds
from palinode.data.scenes import World
from palinode.io import read_json, write_arrays, write_json
from palinode.memorization.prompt_data import Subject
from palinode.memorization.prompt_looks import Artist, Look
from palinode.memorization.prompt_metrics import Followed
from palinode.scratch import Scratch
from palinode.text_to_image import TextToImage
from palinode.training import Batch, draw_noise, train


class Told:
    """A text-to-image model that is always told the same, with the face of an unconditional one.

    predict(x_t, t) = eps_theta(x_t, t, c) with c = `condition` [1, L, D]; passes are counted with the model's.
    """

    def __init__(self, model: TextToImage, condition: Tensor):
        self.model, self.told = model, condition
        self.net, self.schedule, self.passes, self.device = model.net, model.schedule, model.passes, model.device

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            raise ValueError("its condition is fixed")
        return self.model.predict(x_t, t, self.told.expand(len(x_t), -1, -1))


class LatentBatches:
    """Micro-batches of latents, float32 [N, C, h, w], drawn with replacement as `training.Batches` draws images."""

    def __init__(self, retain: Tensor, forget: Tensor, total: int, size: int, accumulate: int, device, key: tuple):
        self.retain, self.forget, self.total = retain, forget, total
        self.size, self.accumulate, self.device, self.key = size, accumulate, device, key

    def __call__(self, step: int) -> Iterator[Batch]:
        generator = seeds.generator(*self.key, step)
        for _ in range(self.accumulate):
            x, a = (
                latents[torch.randint(len(latents), (self.size,), generator=generator)]
                for latents in (self.retain, self.forget)
            )
            t, eps = draw_noise(x.shape, self.total, generator)
            pick = torch.rand(self.size, generator=generator)
            yield Batch(*(v.to(self.device) for v in (x, a, t, eps, pick)), self.total, generator)


class Watch:
    """Looks at a prompt's pictures every so many steps; what it saw waits in a folder, so that a killed run goes on."""

    def __init__(self, artist: Artist, subject: Subject, folder: Path):
        self.artist, self.subject, self.folder = artist, subject, folder

    def __call__(self, step: int) -> None:
        path = self.folder / f"look-{step}.npz"
        if step % self.artist.settings.sample.every == 0 and not path.exists():
            write_arrays(path, vars(self.artist.look(self.subject.prompt.versions)))

    def seen(self, steps: int) -> dict[int, Look]:
        """The look at step 0, which is the base's, and those that followed."""
        found = {0: self.subject.start}
        for step in range(self.artist.settings.sample.every, steps + 1, self.artist.settings.sample.every):
            with np.load(self.folder / f"look-{step}.npz") as arrays:
                found[step] = Look(**arrays)
        return found


def forget(
    model: TextToImage, subject: Subject, settings, key: tuple, world: World, scratch: Scratch, label: str
) -> Followed:
    """Train `model` in place to forget one prompt, and follow what it draws.

    settings: root_seed, task, sample, method, options, training; key: of batches.
    """
    training, artist = settings.training, Artist(model, settings)
    method = methods.load(settings.method, settings.options)
    with torch.no_grad():
        told = Told(model, model.condition([subject.prompt.told]))
    model.passes.update(dict.fromkeys(model.passes, 0))
    sizes = (len(model.schedule), training.batch, training.accumulate, model.device)
    batches = LatentBatches(subject.retain, subject.forget, *sizes, key)
    watch = Watch(artist, subject, scratch.folder)
    history = train(told, method, batches, training, scratch, label, watch)
    passes = dict(model.passes)
    return Followed(watch.seen(training.steps), artist.ordinary(world), artist.others(world), history, passes)


def kept(folder: Path, make: Callable[[], Followed]) -> Followed:
    """What `make` makes, from the folder if an interrupted run made it already."""
    if not (folder / "done.json").exists():
        made = make()
        looks = {f"{name}_{step}": array for step, it in made.looks.items() for name, array in vars(it).items()}
        write_arrays(folder / "done.npz", looks | {"ordinary": made.ordinary, "others": made.others})
        write_json(folder / "done.json", {"history": made.history, "passes": made.passes, "steps": [*made.looks]})
    facts = read_json(folder / "done.json")
    with np.load(folder / "done.npz") as arrays:
        looks = {step: Look(arrays[f"pictures_{step}"], arrays[f"norms_{step}"]) for step in facts["steps"]}
        return Followed(looks, arrays["ordinary"], arrays["others"], facts["history"], facts["passes"])
