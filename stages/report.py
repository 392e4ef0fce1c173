"""Stage report: every evaluated cell -> results/ and report/index.html."""

from pathlib import Path

from palinode import io
from palinode.report.build import build
from palinode.report.environment import describe
from palinode.settings import read
from palinode.stage import device, main


def run() -> None:
    device()  # sets the threads that environment.json names
    print(build(vars(read("report"))))
    io.write_json(Path("results/environment.json"), describe())


if __name__ == "__main__":
    main(run)
