"""Which weights matter to the target and to the rest, for the methods that ask."""

from collections.abc import Callable

from safetensors.torch import save_file
from torch import Tensor

from palinode.core import seeds
from palinode.core.errors import Absent
from palinode.core.io import absence, atomic
from palinode.core.work import Work
from palinode.models import loading
from palinode.params.stage_settings import Importance
from palinode.tasks.subjects import seed_name
from palinode.training import concept_batches, importance


def run(work: Work, task: str, subject: str) -> None:
    settings = work.settings(Importance)
    reason = absence(work.input("training"))
    if reason:
        raise Absent(reason)
    key = (settings.root_seed, seed_name(settings.name, int(subject)), "importance")
    model = loading.load(work.input("base"), work.device)
    data = concept_batches.load(work.input("training"))
    batches = concept_batches.ConceptBatches(data, model, settings.batch, 1, key)
    if settings.gradient_checkpointing:
        model.net.enable_gradient_checkpointing()
    x = data.retain[: settings.fisher].to(model.device)
    conditions = batches.conditions[data.retain_prompt[: settings.fisher]]

    def measure_saliency() -> Tensor:
        drawn = (next(batches(step)) for step in range(settings.saliency))
        return importance.saliency(model, drawn, settings.saliency_guidance, settings.saliency_clip)

    def measure_fisher() -> Tensor:
        generator = seeds.generator(*key, "fisher")
        return importance.fisher(model, x, conditions, settings.fisher_steps, generator, settings.batch)

    measures: dict[str, Callable[[], Tensor]] = {"saliency": measure_saliency, "fisher": measure_fisher}
    with atomic(work.outputs[0]) as folder:
        folder.mkdir(parents=True)
        for name, measure in measures.items():  # one at a time: each is as large as the network
            save_file({name: measure().cpu()}, folder / f"{name}.safetensors")
