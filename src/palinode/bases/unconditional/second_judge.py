"""There is no second judge: a model without conditions forgets no concept."""

from palinode.core.errors import Absent
from palinode.core.work import Work
from palinode.params.stage_settings import FitSecondJudge


def run(work: Work) -> None:
    raise Absent(work.settings(FitSecondJudge).reason)
