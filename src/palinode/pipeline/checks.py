"""Everything that can be known to fail, checked before anything is computed; each problem is one line."""

import hashlib
import math
from pathlib import Path

import numpy as np

from palinode.core import seeds
from palinode.core.errors import UserError
from palinode.core.io import read_array
from palinode.data import captions, emoji, prompt_file, prompt_lists, prompt_sets, sources
from palinode.data.captions import STYLES
from palinode.data.splits import read_labels
from palinode.memorization import detectors
from palinode.params import KINDS, Params
from palinode.params.bases import ClassBase, ImageData, OracleBase, TextBase, UnconditionalBase
from palinode.params.concept_tasks import ConceptTask
from palinode.params.image_tasks import ImageTask
from palinode.params.prompt_tasks import PromptTask
from palinode.pipeline import needs

LARGEST = 64 * 2**30  # bytes of X, with its repeated images, that pretraining may hold in memory


def check(params: Params, root: Path) -> None:
    """UserError for the first problem; root: the repository's folder."""
    needs.check(params)
    for base in params.bases:
        _check_base(params, base, root)
    for name in params.images.tasks:
        count = _check_image_task(params, name, params.image_tasks[name], root)
        _check_subjects("images", name, params.images.subjects, count)
    for name in params.concept.tasks:
        _check_concept_task(params, name, params.concept_tasks[name], root)
        _check_subjects("concept", name, params.concept.subjects, len(params.concept_tasks[name].pairs))
    for name in params.prompts.tasks:
        least = _least_retained(params.prompt_tasks[name])
        _check_neighbours(params, "prompts", name, params.prompt_tasks[name], least)
    _check_steps(params)
    _check_weights(params, root)
    if params.detection.bases:
        _check_detection(params, root)


def hash_data(path: Path) -> str:
    """SHA-256 over the content of a file, or over the names and contents of a folder's files."""
    if not path.exists():
        raise UserError(f"missing data: {path}")
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with open(file, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]


def _check_base(params: Params, name: str, root: Path) -> None:
    base = params.recipe(name)
    where = f"base_models.{name}"
    try:
        if isinstance(base, UnconditionalBase):
            _check_image_data(base.data, root)
        if isinstance(base, ClassBase):
            classes = _check_labelled(base.images, base.size, base.channels, root)
            for path in (base.judge.train, base.judge.test):
                _check_labelled(path, base.size, base.channels, root)
            without = params.without(name)
            if without is not None and not 0 <= int(without) < classes:
                raise UserError(f"without: class {without} does not exist: there are 0 to {classes - 1}")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    oracle = params.base_models[name]
    if isinstance(oracle, OracleBase) and isinstance(base, TextBase):
        known = {*captions.read_concepts(root / emoji.FOLDER / "concepts.yaml"), *STYLES, "memorized"}
        if oracle.without not in known:
            raise UserError(f"{where}.without: {oracle.without!r} is no concept, no style and not 'memorized'")


def _check_image_data(data: ImageData, root: Path) -> None:
    shape = (data.size, data.size, data.channels)
    count = sources.inspect(root / data.images, shape)
    if data.repeated is not None:
        count += data.repeated.copies * sources.inspect(root / data.repeated.images, shape)
    if count * int(np.prod(shape)) > LARGEST:
        raise UserError(f"data: {count} images of {shape} are more than {LARGEST >> 30} GiB; lower `copies`")
    if data.reference is not None:
        sources.inspect(root / data.reference, shape)
    if data.judge is not None:
        for path in (data.judge.train, data.judge.test):
            _check_labelled(path, data.size, data.channels, root)


def _check_labelled(name: str, size: int, channels: int, root: Path) -> int:
    """The number of classes of labelled images."""
    path = root / name
    count = sources.inspect(path, (size, size, channels))
    return int(read_labels(path, count).max()) + 1


def _check_subjects(kind: str, name: str, subjects: list[int], count: int) -> None:
    """At least one subject of every task is listed, or there would be nothing to report."""
    if all(subject >= count for subject in subjects):
        raise UserError(f"{kind}.subjects: {name!r} has none of {subjects}: it has {count}, counted from 0")


def _check_weights(params: Params, root: Path) -> None:
    """The files of weights that a user brings are there."""
    for kind in KINDS:
        for name in params.enabled(kind).tasks:
            task = params.task(name)
            weights: dict[str, str | None] = {}
            if isinstance(task, ImageTask):
                weights = {"evaluate.lpips_trunk": task.evaluate.lpips_trunk, "evaluate.sscd": task.evaluate.sscd}
            if isinstance(task, ConceptTask):
                weights = {"lpips_trunk": task.lpips_trunk}
            if isinstance(task, PromptTask):
                weights = {"sscd": task.sscd}
            for key, path in weights.items():
                if path is not None and not (root / path).is_file():
                    raise UserError(f"{name}: {key}: missing file: {path}")


def _check_steps(params: Params) -> None:
    """No sampler takes more steps than there are."""
    asked: list[tuple[str, str, int, str]] = []
    for name in params.bases:
        base = params.recipe(name)
        if isinstance(base, TextBase):
            asked.append((name, "sampler.steps", base.sampler.steps, name))
    for kind in KINDS:
        for name in params.enabled(kind).tasks:
            task = params.task(name)
            asked.append((name, "sample.steps", task.sample.steps, task.base))
            if not isinstance(task, ImageTask):
                asked.append((name, "trajectory_steps", task.steps_of_trajectories, task.base))
                continue
            most = _most_steps(params, task.base)
            if task.evaluate.denoise_from >= most:
                raise UserError(f"{name}: evaluate.denoise_from: {task.evaluate.denoise_from} is not below {most}")
    for name, key, steps, base_name in asked:
        most = _most_steps(params, base_name)
        if steps > most:
            raise UserError(f"{name}: {key}: {steps} are more than the {most} of {base_name!r}")


def _most_steps(params: Params, base: str) -> float:
    """How many steps a sampler of the base can take; no limit is known for a finished model, which is not here yet."""
    recipe = params.recipe(base)
    if recipe.scheduler is None or getattr(recipe, "source", None) is not None:
        return math.inf
    return recipe.scheduler["num_train_timesteps"] - recipe.scheduler.get("steps_offset", 0)


def _check_image_task(params: Params, name: str, task: ImageTask, root: Path) -> int:
    """The number of its subjects."""
    data = params.unconditional(task.base).data
    shape = (data.size, data.size, data.channels)
    try:
        if isinstance(task.forget, str):
            count = sources.inspect(root / task.forget, shape)
            if count == 0:
                raise UserError(f"{task.forget} holds no image")
        else:
            _check_listed(task.forget, root / data.images, shape)
            count = len(task.forget)
    except UserError as error:
        raise UserError(f"image_tasks.{name}.forget: {error}") from None
    named = count if isinstance(task.forget, list) else 0
    _check_neighbours(params, "images", name, task, sources.inspect(root / data.images, shape) - named)
    return 1 if task.subjects == "together" else count


def _least_retained(task: PromptTask) -> int:
    """How many pictures of a prompt are retained at least, by the rule that splits them."""
    return math.ceil(task.split.images * (1 - task.split.share_range[1]))


def _check_neighbours(params: Params, kind: str, name: str, task: ImageTask | PromptTask, retained: int) -> None:
    """UserError where a row asks for more nearest retained pictures than are retained."""
    asking = [row for row in params.enabled(kind).rows if "neighbours" in needs.needs_of(params, name, row)]
    if asking and task.neighbours > retained:
        reason = f"{task.neighbours} neighbours are more than the {retained} retained pictures"
        raise UserError(f"{name}: neighbours: {reason} that there are at least, and {asking[0]} needs them")


def _check_listed(names: list[str], folder: Path, shape: tuple[int, int, int]) -> None:
    """Names of files that are in a folder of images, and not all of them."""
    if not names:
        raise UserError("the forget set is empty: k = 0 leaves nothing to unlearn")
    if len(set(names)) < len(names):
        raise UserError("the forget set repeats an image: list each once")
    if len(names) == len(sources.image_files(folder)):
        raise UserError("the retain set is empty: k = n leaves nothing to keep")
    for name in names:
        sources.read_image(folder / name, shape)


def _check_concept_task(params: Params, name: str, task: ConceptTask, root: Path) -> None:
    for pair in task.pairs:
        try:
            _check_pair(params, name, task, pair, root)
        except UserError as error:
            raise UserError(f"concept_tasks.{name}: {error}") from None


def _check_pair(params: Params, name: str, task: ConceptTask, pair: tuple, root: Path) -> None:
    """A pair that the base's prompts can be made of."""
    base = params.recipe(task.base)
    target, anchor = pair
    if isinstance(base, ClassBase):
        labels = read_array((root / base.images).with_name(f"{Path(base.images).stem}-labels.npy"))
        classes = list(range(int(labels.max()) + 1))
        prompt_sets.check_pair(target, anchor, classes, classes)
        return
    generator = seeds.generator(params.root_seed, name, "strata")
    if task.prompts is not None:
        concepts, grammar = prompt_file.read(root / task.prompts)
    else:
        concepts, grammar = captions.read_concepts(root / emoji.FOLDER / "concepts.yaml"), captions.EMOJI
    prompt_sets.of_captions(concepts, str(target), str(anchor), task.sample.each, generator, grammar)


def _check_detection(params: Params, root: Path) -> None:
    for name in params.detection.detectors:
        detectors.check(name, params.detection.generations, "detection.detectors: ")
    if params.detection.prompts:
        prompt_lists.read(root / params.detection.prompts)
