"""The digit judge of a base: trained on labelled images that no base is trained on."""

from palinode.classifiers import digits, storage
from palinode.core.errors import Absent, UserError
from palinode.core.io import read_array
from palinode.core.work import Work
from palinode.params.stage_settings import TrainJudge


def run(work: Work) -> None:
    settings = work.settings(TrainJudge)
    if settings.judge is None:
        raise Absent(settings.reason)
    data = work.inputs[1]
    images, labels, test, truth = (
        read_array(data / f"judge-{part}.npy") for part in ("train", "train-labels", "test", "test-labels")
    )
    work.set_up_torch()
    with work.scratch() as scratch:
        judge = digits.train(images, labels, (settings.root_seed, "judge"), checkpoint=scratch.checkpoint)
        accuracy = digits.accuracy(judge, test, truth)
        if accuracy < settings.judge.accuracy:
            raise UserError(f"{work.name}: test accuracy {accuracy:.4f} is below {settings.judge.accuracy:g}")
        storage.save(judge, work.outputs[0], {"test_accuracy": accuracy, "test_images": len(test)})
        print(f"{work.name}: test accuracy {accuracy:.4f} on {len(test)} images")
