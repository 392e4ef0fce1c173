"""Train a base model, or an oracle that never saw something: pretrain.py BASE."""

from palinode import bases
from palinode.core.work import Work
from palinode.pipeline.stage import main


def run(work: Work, base: str) -> None:
    bases.load(work, "pretrain").run(work)


if __name__ == "__main__":
    main(run)
