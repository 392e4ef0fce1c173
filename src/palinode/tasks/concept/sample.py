"""Draw what each prompt set asks for: of a cell, or of a reference row.

Reference rows are base, oracle, and other-seed, the base model from another noise.
"""

from palinode.core.errors import Absent
from palinode.core.io import absence, read_json, write_array
from palinode.core.work import Work
from palinode.data.prompt_sets import PromptSets
from palinode.models import loading
from palinode.params.stage_settings import SampleConcept
from palinode.sampling import prompted
from palinode.tasks.subjects import seed_name


def run(work: Work, task: str, subject: str, row: str, seed: str) -> None:
    """row, seed: `reference` and the name of a reference row, for a row that is not unlearned."""
    settings = work.settings(SampleConcept)
    reference = seed if row == "reference" else None
    folder = work.input("model") if reference is None else work.input(f"{task}/{subject}/{reference}")
    prompts = work.input("prompts")
    reason = absence(prompts) or absence(folder)
    if reason:
        raise Absent(reason)
    sets = PromptSets.from_json(read_json(prompts / "prompt_sets.json"))
    name = seed_name(settings.name, int(subject))
    key = (settings.root_seed, f"{name} other" if reference == "other-seed" else name)
    sample = settings.sample
    with work.scratch() as scratch:
        model = loading.load(folder, work.device)
        asked = [model.parse_prompt(caption.text) for captions in sets.all.values() for caption in captions]
        images = prompted.draw(model, asked, key, sample.guidance, sample.steps, scratch, sample.chunk)
        write_array(work.outputs[0] / "samples.npy", images)
