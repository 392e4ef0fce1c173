"""Build results/ and report/index.html from every evaluated cell that the lists name: report.py."""

from pathlib import Path

from palinode.core import io
from palinode.core.work import Work
from palinode.params.report_settings import ReportSettings
from palinode.pipeline.stage import main
from palinode.report.build import build
from palinode.report.environment import describe


def run(work: Work) -> None:
    work.set_up_torch()  # the threads that environment.json names
    print(build(work.settings(ReportSettings)))
    io.write_json(Path("results/environment.json"), describe())


if __name__ == "__main__":
    main(run)
