"""The second judge of classes: fitted on the labelled images that the first judge learnt from."""

from palinode.core.errors import Absent
from palinode.core.estimate import share
from palinode.core.io import atomic, read_array, write_json
from palinode.core.work import Work
from palinode.metrics.features import EfficientNetLite0
from palinode.metrics.second_judge import SecondJudge
from palinode.params.stage_settings import FitSecondJudge


def run(work: Work) -> None:
    settings = work.settings(FitSecondJudge)
    if settings.reason:
        raise Absent(settings.reason)
    data = work.inputs[1]
    images, labels, test, truth = (
        read_array(data / f"judge-{part}.npy") for part in ("train", "train-labels", "test", "test-labels")
    )
    judge = SecondJudge.fit(EfficientNetLite0(work.device), images, {"class": labels.astype(int)})
    right = judge(test)["class"] == truth
    accuracy = {"class": {"held_out": share(int(right.sum()), len(right))}}
    with atomic(work.outputs[0]) as folder:
        folder.mkdir(parents=True)
        judge.save(folder)
        write_json(folder / "accuracy.json", accuracy)
    print(f"{work.name}: {accuracy['class']['held_out']['value']:.1%} right of {len(test)} held-out images")
