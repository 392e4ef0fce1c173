"""One face for concept tasks on captions and on classes: their model, judge, prompts and data."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from palinode import class_conditional, concept_data, models, seeds, text_to_image
from palinode import judge as judge_files
from palinode.concept import ConceptData
from palinode.data import strata
from palinode.data.captions import Caption
from palinode.data.scenes import World
from palinode.data.strata import Strata
from palinode.errors import UserError
from palinode.io import read_array
from palinode.metrics.concept import ClassEyes, SceneEyes
from palinode.models import Diffuser
from palinode.scene_judge import SceneJudge


@dataclass(frozen=True)
class Built:
    """What `prepare_concept` writes beside the models."""

    strata: Strata
    data: ConceptData

    def save(self, folder: Path) -> None:
        concept_data.save(self.data, folder)


def build(settings, base: Path, device) -> Built:
    """Prompts and training data of a task. settings: the plan of prepare-concept."""
    key = (settings.root_seed, settings.task)
    model = load(base, device)
    if settings.kind == "text":
        world, target = World.read(), settings.target
        generator = seeds.generator(*key, "strata")
        prompts = strata.of_captions(world.concepts, target, settings.anchor, settings.sample.each, generator)
        return Built(prompts, concept_data.of_captions(model, world, target, prompts, settings.training, key))
    path = Path(settings.images)
    images, labels = read_array(path), read_array(path.with_name(f"{path.stem}-labels.npy"))
    prompts = strata.of_classes(model.classes, settings.target, settings.anchor, settings.sample.each)
    numbers = (settings.target, settings.anchor)
    return Built(prompts, concept_data.of_classes(model, images, labels, *numbers, settings.training, key))


def load(folder: Path, device="cpu", precision: str = "fp32") -> Diffuser:
    """A text-to-image or class-conditional folder; UserError for another kind of model."""
    if (Path(folder) / "text_encoder").is_dir():
        return text_to_image.load(folder, device, precision)
    return class_conditional.of(models.load(folder, device, precision), str(folder))


def save(model: Diffuser, folder: Path) -> None:
    """fp32, in the format it was loaded from."""
    import torch

    if isinstance(model, text_to_image.TextToImage):
        text_to_image.save(model, folder, torch.float32)
    else:
        models.save(model, folder)


def eyes(folder: Path, kind: str, target):
    """The judge of a task, looking for its target."""
    if kind == "text":
        return SceneEyes(judge_files.load(folder, SceneJudge), list(World.read().concepts), target)
    return ClassEyes(judge_files.load(folder), target)


def prompt(caption: Caption, kind: str):
    """What a model of this kind is asked: a text, or a class (None for the empty prompt)."""
    if kind == "text":
        return caption.text
    return int(caption.text) if caption.text else None


def names(settings) -> dict[str, list[str]]:
    """Prompts that end in a name, for closed-form edits: the target's, the anchor's, those of all other things and
    styles. UserError for a class-conditional task."""
    if settings.kind != "text":
        raise UserError("uce edits how prompts are read: it needs a text-to-image base")
    from palinode.data.captions import STYLES

    known = [*World.read().concepts, *STYLES]
    kept = [name for name in known if name not in (settings.target, settings.anchor)]
    return {"target": [settings.target], "anchor": [settings.anchor], "kept": kept}


def to_json(prompts: Strata) -> dict:
    return dataclasses.asdict(prompts)


def from_json(value: dict) -> Strata:
    """The inverse of `to_json`."""

    def caption(entry: dict) -> Caption:
        return Caption(entry["text"], tuple(entry["concepts"]), entry["style"], entry["background"])

    given = [(caption(one), caption(other)) for one, other in value["given"]]
    parts = ({k: [caption(it) for it in some] for k, some in value[part].items()} for part in ("forget", "keep"))
    return Strata(given, *parts)
