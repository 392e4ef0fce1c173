"""Unlearning of memorised prompts: methods of the families data and concept, unchanged, on a model told one prompt."""

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from palinode import methods, seeds
from palinode.concept import ConceptBatches, ConceptData
from palinode.conditional_sampling import timesteps
from palinode.io import read_json, write_arrays, write_json
from palinode.memorization.ground import Beside
from palinode.memorization.prompt_data import PromptData, Subject
from palinode.memorization.prompt_looks import Artist, Look
from palinode.memorization.prompt_metrics import Followed
from palinode.scratch import Scratch
from palinode.text_to_image import TextToImage
from palinode.training import train

WEIGHTS = "weights.safetensors"


class Told:
    """A text-to-image model that is told the same unless it is told otherwise; all else is the model's own.

    predict(x_t, t) = eps_theta(x_t, t, c) with c = `condition` [1, L, D], so that it has the face of an unconditional
    model as well.
    """

    def __init__(self, model: TextToImage, condition: Tensor):
        self.model, self.told = model, condition

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.model.predict(x_t, t, self.told.expand(len(x_t), -1, -1) if condition is None else condition)


def training_data(subject: Subject, model: TextToImage, steps: int, anchored: bool) -> ConceptData:
    """What a step sees of a prompt: x to keep and a to forget, both told the prompt, as the SISS paper has it.

    The target is the prompt, its anchor the empty one. A method that trains with an anchor is told nothing of x, since
    under the prompt itself the original is what must not be kept. steps: of the sampler that `subject.traced` comes
    from.
    """
    keep, forget, states = subject.retain, subject.forget, subject.traced
    nothing, prompt = 0, 1
    return ConceptData(
        [model.nothing, subject.prompt.told], x=keep, kept=torch.full((len(keep),), nothing if anchored else prompt),
        a=forget, m=keep[torch.arange(len(forget)) % len(keep)], target=torch.full((len(forget),), prompt),
        anchor=torch.full((len(forget),), nothing), z=states, traced=torch.full((len(states),), prompt),
        times=torch.tensor(timesteps(model.config, steps)),
    )  # fmt: skip


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


def unlearn(
    model: TextToImage, subject: Subject, settings, key: tuple, beside: Beside, scratch: Scratch, label: str,
    watch: Callable[[int], None] | None = None,
) -> list[dict]:
    """Train `model` in place to forget one prompt, and return what was logged.

    settings: sample, method, options, training; key: of batches.
    """  # fmt: skip
    training, method = settings.training, methods.load(settings.method, settings.options)
    told, nothing = subject.prompt.told, model.nothing
    if method.closed_form:
        method.edit(model, {"target": [told], "anchor": [nothing], "kept": beside.kept})
        return [{"step": 0}]
    with torch.no_grad():
        face = Told(model, model.condition([told]))
    method.begin(face, {"seed": seeds.derive(*key, "method")})
    data = training_data(subject, model, settings.sample.steps, method.needs_anchor)
    batches = ConceptBatches(data, model, training.batch, training.accumulate, key)
    history = train(face, method, batches, training, scratch, label, watch)
    gc.collect()  # torch leaves a process's first optimiser, moments and all, in a reference cycle
    return history


def forget(
    model: TextToImage, subject: Subject, settings, key: tuple, beside: Beside, scratch: Scratch, label: str,
    goes_on: bool = False,
) -> Followed:
    """`unlearn`, and follow what the model draws on the way. settings: root_seed and task besides; goes_on: leave the
    weights in `scratch`, where `forget_in_turn` finds them."""  # fmt: skip
    artist, steps = Artist(model, settings), settings.training.steps
    model.passes.update(dict.fromkeys(model.passes, 0))
    watch = Watch(artist, subject, scratch.folder)
    history = unlearn(model, subject, settings, key, beside, scratch, label, watch)
    passes = dict(model.passes)
    if goes_on:
        scratch.once(WEIGHTS, partial(save_file, model.net.state_dict()))
    if methods.find(settings.method).closed_form:  # one edit, looked at once
        steps = settings.sample.every
        watch(steps)
    return Followed(watch.seen(steps), *artist.aside(beside), history, passes)


def forget_in_turn(
    model: TextToImage, data: PromptData, settings, keys: list[tuple], scratches: list[Scratch], label: str
) -> list[Followed]:
    """The same model forgets one prompt after the other, by `unlearn`; what it draws when all are forgotten.

    scratches: one a prompt; weights that are there already are taken from it.
    """
    for i, (subject, key, scratch) in enumerate(zip(data.subjects, keys, scratches, strict=True)):

        def make(weights: Path, i=i, subject=subject, key=key, scratch=scratch) -> None:
            unlearn(model, subject, settings, key, data.beside, scratch, f"{label}, in turn {i + 1}")
            save_file(model.net.state_dict(), weights)

        model.net.load_state_dict(load_file(scratch.once(WEIGHTS, make), device=str(model.device)))
    artist = Artist(model, settings)
    aside = artist.aside(data.beside)
    return [Followed({0: artist.look(subject.prompt.versions)}, *aside) for subject in data.subjects]


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
