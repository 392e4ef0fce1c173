"""tools/strengths.py: rows compared where each forgets as much, from runs of several strengths."""

import json
import os
import subprocess

import numpy as np
import pytest
import strengths
import yaml
from project import PARAMETERS, ROOT

from palinode.errors import UserError
from palinode.report import plots
from palinode.report import strengths as report
from palinode.report.collect import Cell, Row

FORGOT = {"half": 0.5, "whole": 1.0}


def row(name: str, forgot: float, kept: float, wobble: float = 0.0) -> Row:
    values = {metric: kept for metric in strengths.KEPT} | {strengths.FORGOT: forgot}
    metrics = {metric: {"value": value, "lo": value, "hi": value, "n": 8, "interval": "bootstrap", "direction": "up"}
               for metric, value in values.items()}  # fmt: skip
    spread = np.linspace(-wobble, wobble, 5)
    return Row(name, [Cell(0, None, metrics, {m: v + spread * (m != strengths.FORGOT) for m, v in values.items()})])


def drawn(found: dict) -> bytes:
    with report.panels(found) as fig:
        return plots.png(fig)


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
    runs = [strengths.Run(0.5, [0], [row("a", 0.5, 1.0), row("b", 0.8, 0.8, 0.1), row("c", 0.95, 1.0)]),
            strengths.Run(1.0, [0], [row("a", 1.0, 0.6), row("b", 1.0, 0.6, 0.1), row("c", 1.0, 1.0)])]  # fmt: skip
    found = strengths.compare(runs)
    a, b, c = found["matched"]
    assert a["strength"]["value"] == pytest.approx(0.9) and a[strengths.RANKED]["value"] == pytest.approx(0.68)
    assert b[strengths.RANKED]["value"] == pytest.approx(0.7)
    assert b[strengths.RANKED]["lo"] == pytest.approx(0.605) and "behind" not in b
    assert a["reached"] == 1 and a["behind"] == pytest.approx(0.6)  # b keeps 0.6, 0.65, 0.7, 0.75, 0.8
    assert c["outside"] == "UA 95% to 100%, not across the level" and strengths.RANKED not in c
    assert len(found["points"]) == 6 and found["points"][0] == {
        "row": "a", "strength": 0.5, strengths.FORGOT: 0.5, **dict.fromkeys(strengths.KEPT, 1.0)}  # fmt: skip
    assert drawn(found) == drawn(found)


def test_a_metric_that_a_row_does_not_have_is_left_out():
    runs = [strengths.Run(s, [0], [row("a", ua, 0.5), row("b", ua, 0.5)]) for s, ua in ((0.5, 0.8), (1.0, 1.0))]
    del runs[1].rows[1].cells[0].metrics["integrity_far_judge"]
    found = strengths.compare(runs)
    assert report.kept(found) == {name: strengths.KEPT[name] for name in ("right_near", strengths.RANKED)}
    text = strengths.markdown({"commit": "0" * 40} | found, "styles")
    assert "far things" not in text and "| a | 0.5, 1 | 0.75 [0.75, 0.75] | 0.50 [0.50, 0.50] |" in text
    assert drawn(found).startswith(b"\x89PNG")
    found["matched"][0]["reached"] = 0.4
    assert "0.75 [0.75, 0.75] (in 40% of the replicates)" in strengths.markdown({"commit": ""} | found, "styles")


def test_runs_that_cannot_be_compared_are_refused():
    one, other = strengths.Run(1.0, [0], [row("a", 0.5, 1)]), strengths.Run(1.0, [1], [row("a", 0.5, 1)])
    with pytest.raises(UserError, match="different seeds"):
        strengths.compare([one, other])
    with pytest.raises(UserError, match="a: two revisions have the same strength"):
        strengths.compare([one, one])
    with pytest.raises(UserError, match="a: ua_t0 is absent: not run"):
        strengths.compare([strengths.Run(1.0, [0], [Row("a", [Cell(0, None, absent="not run")])])])


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """A repository with a commit for each strength, whose cells are in git."""
    work = tmp_path_factory.mktemp("revisions")

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=work, check=True, capture_output=True)

    git("init", "-q")
    subprocess.run(["dvc", "init", "-q"], cwd=work, check=True)
    made = PARAMETERS | {"concept": {"tasks": [], "rows": []}}
    training = {"steps": 4, "batch": 2, "accumulate": 1}
    settings = {"seeds": [0], "families": {"cats": "concept"}, "tasks": {"cats": {"a": {"training": training}}}}
    for name, forgot in FORGOT.items():
        files = {"params.yaml": yaml.safe_dump(made | {"concept": {"strength": forgot}}),
                 "out/plan/report.json": json.dumps({"settings": settings})}  # fmt: skip
        for cell in ("a", "base", "oracle", "other"):
            it = row(cell, forgot, 1 - forgot / 2).cells[0]
            folder = work / f"out/cells/cats/{cell}/0/evaluation"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text(json.dumps(it.metrics))
            np.savez(folder / "replicates.npz", **it.replicates)
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git("add", "-f", ".")
        git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", name)
        git("branch", name)
    return work


def test_revisions_are_read_and_written(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    strengths.run("cats", "half", "whole")
    found = json.loads((strengths.FOLDER / "cats.json").read_text())
    assert found["matched"][0][strengths.RANKED]["value"] == pytest.approx(0.55) and len(found["commit"]) == 40
    assert (strengths.FOLDER / "cats.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("asked,message", [
    (["cats", "half"], "arguments: TASK REVISION REVISION"),
    (["dogs", "half", "whole"], "half has no concept task 'dogs'"),
    (["cats", "half", "double"], "double"),
])  # fmt: skip
def test_what_is_missing_is_named(revisions, monkeypatch, asked, message):
    monkeypatch.chdir(revisions)
    with pytest.raises(UserError, match=message):
        strengths.run(*asked)


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
        found = json.loads(path.read_text())
        assert found["level"] == strengths.LEVEL and os.path.exists(path.with_suffix(".png"))
