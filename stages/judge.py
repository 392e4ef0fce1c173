"""Train the classifier that scores samples: judge.py TASK."""

from pathlib import Path

from palinode.errors import UserError
from palinode.io import read_array, write_text
from palinode.settings import path, read
from palinode.stage import device, main


def run(task: str) -> None:
    name, folder, data = f"judge-{task}", Path("models") / task / "judge", Path("out/data") / task
    settings = read(name)
    if settings.judge is None:
        write_text(folder / "absent.txt", f"task {task} has no labelled images (`data.judge`)\n")
        return
    from palinode import judge
    from palinode.scratch import Scratch

    device()
    files = [data / f"judge-{part}.npy" for part in ("train", "train-labels", "test", "test-labels")]
    images, labels, test, truth = map(read_array, files)
    with Scratch(name, [path(name), *files[:2]]) as scratch:
        trained = judge.train(images, labels, (settings.root_seed, "judge"), checkpoint=scratch.checkpoint)
        accuracy = judge.accuracy(trained, test, truth)
        if accuracy < settings.judge.accuracy:
            raise UserError(f"judge@{task}: test accuracy {accuracy:.4f} is below {settings.judge.accuracy:g}")
        judge.save(trained, folder, {"test_accuracy": accuracy, "test_images": len(test)})
        print(f"judge@{task}: test accuracy {accuracy:.4f} on {len(test)} images")


if __name__ == "__main__":
    main(run)
