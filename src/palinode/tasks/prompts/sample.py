"""Draw what a reference row draws under the prompts of a task: base, or mitigated.

mitigated: the same weights, but every prompt is mitigated before the network attends to it (Wen et al., arXiv
2407.21720). Rows that unlearn draw while they train (`unlearn.py`).
"""

from typing import Any

from palinode.core.work import Work
from palinode.memorization.mitigation import Mitigating
from palinode.memorization.prompt_sampler import PromptSampler
from palinode.models import text_to_image
from palinode.params.stage_settings import SamplePrompts
from palinode.tasks.prompts.snapshots import Snapshots, chosen_prompts
from palinode.tasks.prompts.targets import read_facts


def run(work: Work, task: str, subject: str, reference: str, row: str) -> None:
    settings = work.settings(SamplePrompts)
    facts = read_facts(work.input("prompts.json").parent)
    numbers = chosen_prompts(facts, subject)
    model = text_to_image.load(work.input("base"), work.device)
    with work.scratch() as scratch:
        if row == "mitigated":
            assert facts.threshold is not None
            key = (settings.root_seed, settings.name)
            sample = settings.sample
            drawn: Any = Mitigating(model, facts.threshold, key, settings.probe_steps, sample.guidance)
        else:
            drawn = model
        sampler = PromptSampler(
            drawn, settings.root_seed, settings.name, settings.sample, settings.probe_steps, scratch
        )
        by_prompt = {number: {0: sampler.snapshot(facts.prompts[number].versions)} for number in numbers}
        ordinary, others = sampler.control_samples(facts.controls)
    Snapshots(by_prompt, ordinary, others).save(work.outputs[0])
