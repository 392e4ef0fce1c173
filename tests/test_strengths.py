"""tools/strengths.py: rows compared where each forgets as much, from runs of several strengths."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import strengths
import yaml
from test_report_collect import make_rows, settings

from palinode.core.errors import UserError
from palinode.core.io import write_arrays, write_json
from palinode.params.stage_settings import ReportTask
from palinode.report import figures
from palinode.report.collect import Cell, Row
from palinode.report.sections import equal_forgetting

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

ROOT = Path(__file__).resolve().parents[1]
FORGOT = {"half": 0.5, "whole": 1.0}


def make_row(name: str, forgot: float, kept: float, wobble: float = 0.0) -> Row:
    values = dict.fromkeys(strengths.KEPT, kept) | {strengths.FORGOT: forgot}
    metrics = {
        metric: {"value": value, "lo": value, "hi": value, "n": 8, "interval": "bootstrap"}
        for metric, value in values.items()
    }
    spread = np.linspace(-wobble, wobble, 5)
    replicates = {metric: value + spread * (metric != strengths.FORGOT) for metric, value in values.items()}
    return Row(name, [Cell("0", 0, Path("cell"), metrics, replicates)])


def draw(comparison: dict) -> bytes:
    with equal_forgetting.draw_panels(comparison) as fig:
        return figures.png(fig)


def test_what_is_kept_is_read_where_the_level_is_first_crossed():
    forgot = np.array([[0.5, 0.95, 0.1], [0.8, 0.97, 0.2], [1.0, 0.99, 0.3]])
    kept = np.array([[1.0] * 3, [0.9] * 3, [0.5] * 3])
    np.testing.assert_allclose(strengths.at_level(forgot, kept), [0.7, np.nan, np.nan])
    np.testing.assert_allclose(strengths.at_level(forgot, np.array([[1.0], [2], [4]])), [3, np.nan, np.nan])
    assert np.isnan(strengths.at_level(forgot[:1], kept[:1])).all()
    assert np.isnan(strengths.at_level(forgot[2:], kept[2:])).all()
    late = np.array([[0.95], [0.5], [1.0]])  # passed at once, so nothing says where
    assert np.isnan(strengths.at_level(late, kept[:, :1])).all()


def test_rows_are_ranked_where_they_forget_as_much():
    weak = [make_row("a", 0.5, 1.0), make_row("b", 0.8, 0.8, 0.1), make_row("c", 0.95, 1.0)]
    strong = [make_row("a", 1.0, 0.6), make_row("b", 1.0, 0.6, 0.1), make_row("c", 1.0, 1.0)]
    comparison = strengths.compare([strengths.Run(0.5, [0], weak), strengths.Run(1.0, [0], strong)])
    a, b, c = comparison["matched"]
    assert a["strength"]["value"] == pytest.approx(0.9) and a[strengths.RANKED]["value"] == pytest.approx(0.68)
    assert b[strengths.RANKED]["value"] == pytest.approx(0.7)
    assert b[strengths.RANKED]["lo"] == pytest.approx(0.6) and "behind" not in b  # the least of five replicates
    assert a["reached"] == 1 and a["behind"] == pytest.approx(0.6)  # b keeps 0.6, 0.65, 0.7, 0.75, 0.8
    assert c["outside"] == "UA 95% to 100%, not across the level" and strengths.RANKED not in c
    first = {"row": "a", "strength": 0.5, strengths.FORGOT: 0.5, **dict.fromkeys(strengths.KEPT, 1.0)}
    assert len(comparison["points"]) == 6 and comparison["points"][0] == first
    assert draw(comparison) == draw(comparison)


def test_a_metric_that_a_row_does_not_have_is_left_out():
    runs = [
        strengths.Run(strength, [0], [make_row("a", ua, 0.5), make_row("b", ua, 0.5)])
        for strength, ua in ((0.5, 0.8), (1.0, 1.0))
    ]
    del runs[1].rows[1].cells[0].metrics["integrity_far_judge"]
    del runs[1].rows[1].cells[0].replicates["integrity_far_judge"]
    comparison = strengths.compare(runs)
    assert equal_forgetting.list_kept(comparison) == ["accuracy_near", strengths.RANKED]
    text = strengths.markdown({"commit": "0" * 40} | comparison, "styles")
    assert "Integrity, far" not in text and "| a | 0.5, 1 | 0.75 [0.75, 0.75] | 50 [50, 50] |" in text
    assert draw(comparison).startswith(b"\x89PNG")
    comparison["matched"][0]["reached"] = 0.4
    assert "0.75 [0.75, 0.75] (in 40% of the replicates)" in strengths.markdown({"commit": ""} | comparison, "styles")


def test_runs_that_cannot_be_compared_are_refused():
    first = strengths.Run(1.0, [0], [make_row("a", 0.5, 1)])
    second = strengths.Run(1.0, [1], [make_row("a", 0.5, 1)])
    with pytest.raises(UserError, match="different seeds"):
        strengths.compare([first, second])
    with pytest.raises(UserError, match="a: two revisions have the same strength"):
        strengths.compare([first, first])
    missing = Row("a", [Cell("0", 0, Path("cell"), absent="not run")])
    with pytest.raises(UserError, match="a: ua_training_prompts is absent: not run"):
        strengths.compare([strengths.Run(1.0, [0], [missing])])


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """A repository with a commit for each strength, whose cells are in git."""
    work = tmp_path_factory.mktemp("revisions")

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=work, check=True, capture_output=True)

    git("init", "-q")
    subprocess.run(["dvc", "init", "-q"], cwd=work, check=True)
    task = ReportTask(name="cats", kind="concept", subjects=[0], rows=make_rows({"a": None}))
    plan = settings(tasks=[task]).model_dump(mode="json")
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, forgot in FORGOT.items():
        parameters["concept"]["lr_multiplier"] = forgot
        (work / "params.yaml").write_text(yaml.safe_dump(parameters))
        write_json(work / "out/plan/report.json", {"settings": plan, "code": {}})
        for row in ("a", "base", "oracle", "other-seed"):
            cell = make_row(row, forgot, 1 - forgot / 2).cells[0]
            folder = work / f"out/cells/cats/0/{row}/0/evaluation"
            write_json(folder / "metrics.json", cell.metrics)
            write_arrays(folder / "replicates.npz", cell.replicates)
        git("add", "-f", ".")
        git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", name)
        git("branch", name)
    return work


def test_revisions_are_read_and_written(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    strengths.run("cats", "half", "whole")
    written = json.loads((strengths.FOLDER / "cats.json").read_text())
    assert written["matched"][0][strengths.RANKED]["value"] == pytest.approx(0.55) and len(written["commit"]) == 40
    assert (strengths.FOLDER / "cats.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["cats", "half"], "arguments: TASK REVISION REVISION"),
        (["dogs", "half", "whole"], "half has no concept task 'dogs'"),
        (["cats", "half", "double"], "double"),
    ],
)
def test_what_is_missing_is_named(revisions, monkeypatch, arguments, message):
    monkeypatch.chdir(revisions)
    with pytest.raises(UserError, match=message):
        strengths.run(*arguments)


def test_other_code_is_refused(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    (revisions / "src").mkdir()
    (revisions / "src/a.py").write_text("")
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "code"], check=True)
    with pytest.raises(UserError, match="half did not run the code"):
        strengths.run("cats", "half", "whole")


def test_numbers_in_git_are_of_this_shape():
    for path in (ROOT / strengths.FOLDER).glob("*.json"):
        written = json.loads(path.read_text())
        assert written["level"] == strengths.LEVEL and path.with_suffix(".png").exists()
        equal_forgetting.build_table(written)
