"""Check a class-conditional base's labelled images and put them in place: prepare_class.py BASE."""

from pathlib import Path

from palinode.data.splits import write_labelled
from palinode.io import atomic
from palinode.settings import read
from palinode.stage import main


def run(base: str) -> None:
    settings = read(f"prepare-class-{base}")
    shape = (settings.size, settings.size, settings.channels)
    with atomic(Path("out/data") / base) as folder:
        for part in ("train", "judge-train", "judge-test"):
            write_labelled(Path(getattr(settings, part.replace("-", "_"))), part, shape, folder)


if __name__ == "__main__":
    main(run)
