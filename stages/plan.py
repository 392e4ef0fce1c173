"""Check every parameter and write what each stage will do: plan.py (see palinode.plan)."""

from pathlib import Path

from palinode import params, plan
from palinode.io import atomic
from palinode.settings import FOLDER
from palinode.stage import main


def run() -> None:
    with atomic(FOLDER) as folder:
        plan.write_all(params.load(), Path("."), folder)


if __name__ == "__main__":
    main(run)
