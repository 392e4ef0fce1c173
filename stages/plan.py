"""Check every parameter and write what each stage will do: plan.py."""

from pathlib import Path

from palinode import params
from palinode.core.io import atomic
from palinode.core.work import Work
from palinode.pipeline import planning
from palinode.pipeline.stage import main


def run(work: Work) -> None:
    with atomic(work.outputs[0]) as folder:
        planning.write_all(params.load(), Path("."), folder)


if __name__ == "__main__":
    main(run)
