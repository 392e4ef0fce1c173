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
from palinode.params.report_settings import ReportTask
from palinode.report import figures
from palinode.report.collect import Cell, Row
from palinode.report.sections import equal_footing

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

ROOT = Path(__file__).resolve().parents[1]
COMMITS = {"half": 0.5, "whole": 1.0}  # UA of the row at each


FORGOT = "ua_training_prompts"
KEPT = equal_footing.CONCEPT_KEPT
RANKED = "integrity_near_judge"


def make_cells(name: str, values: dict[str, float], wobbling: dict[str, float], reference: bool = False) -> Row:
    metrics = {
        metric: {"value": value, "lo": value, "hi": value, "n": 8, "interval": "bootstrap"}
        for metric, value in values.items()
    }
    spread = np.linspace(-1, 1, 5)
    replicates = {metric: value + spread * wobbling.get(metric, 0.0) for metric, value in values.items()}
    return Row(name, [Cell("0", 0, Path("cell"), metrics, replicates)], reference)


def make_row(name: str, forgot: float, kept: float, wobble: float = 0.0) -> Row:
    values = dict.fromkeys(KEPT, kept) | {FORGOT: forgot}
    return make_cells(name, values, dict.fromkeys(KEPT, wobble))


def make_concept_run(strength: float, rows: list[Row], seeds: tuple[int, ...] = (0,)) -> strengths.Run:
    return strengths.Run("concept", strength, list(seeds), rows, {})


def draw(comparison: dict) -> bytes:
    with equal_footing.draw_panels(comparison) as fig:
        return figures.png(fig)


def test_what_is_kept_is_read_where_the_level_is_first_crossed():
    forgot = np.array([[0.5, 0.95, 0.1], [0.8, 0.97, 0.2], [1.0, 0.99, 0.3]])
    kept = np.array([[1.0] * 3, [0.9] * 3, [0.5] * 3])
    np.testing.assert_allclose(strengths.at_level(forgot, kept, 0.9), [0.7, np.nan, np.nan])
    np.testing.assert_allclose(strengths.at_level(forgot, np.array([[1.0], [2], [4]]), 0.9), [3, np.nan, np.nan])
    assert np.isnan(strengths.at_level(forgot[:1], kept[:1], 0.9)).all()
    assert np.isnan(strengths.at_level(forgot[2:], kept[2:], 0.9)).all()
    late = np.array([[0.95], [0.5], [1.0]])  # passed at once, so nothing says where
    assert np.isnan(strengths.at_level(late, kept[:, :1], 0.9)).all()


def test_rows_are_ranked_where_they_forget_as_much():
    weak = [make_row("a", 0.5, 1.0), make_row("b", 0.8, 0.8, 0.1), make_row("c", 0.95, 1.0)]
    strong = [make_row("a", 1.0, 0.6), make_row("b", 1.0, 0.6, 0.1), make_row("c", 1.0, 1.0)]
    comparison = strengths.compare([make_concept_run(0.5, weak), make_concept_run(1.0, strong)])
    (part,) = comparison["comparisons"]
    a, b, c = part["matched"]
    assert (comparison["kind"], part["question"], part["level"]) == ("concept", "forgetting", 0.9)
    assert a["strength"]["value"] == pytest.approx(0.9) and a[RANKED]["value"] == pytest.approx(0.68)
    assert b[RANKED]["value"] == pytest.approx(0.7)
    assert b[RANKED]["lo"] == pytest.approx(0.6) and "behind" not in b  # the least of five replicates
    assert a["reached"] == 1 and a["behind"] == pytest.approx(0.6)  # b keeps 0.6, 0.65, 0.7, 0.75, 0.8
    assert c["outside"] == "UA 95% to 100%, not across the level" and RANKED not in c
    first = {"row": "a", "strength": 0.5, FORGOT: 0.5, **dict.fromkeys(KEPT, 1.0)}
    assert len(comparison["points"]) == 6 and comparison["points"][0] == first
    assert draw(comparison) == draw(comparison)


def test_a_metric_that_a_row_does_not_have_is_left_out():
    runs = [
        make_concept_run(strength, [make_row("a", ua, 0.5), make_row("b", ua, 0.5)])
        for strength, ua in ((0.5, 0.8), (1.0, 1.0))
    ]
    del runs[1].rows[1].cells[0].metrics["integrity_far_judge"]
    del runs[1].rows[1].cells[0].replicates["integrity_far_judge"]
    comparison = strengths.compare(runs)
    (part,) = comparison["comparisons"]
    assert equal_footing.list_kept(comparison, part) == [*KEPT[:3]]
    text = strengths.markdown({"commit": "0" * 40} | comparison, "styles")
    assert "Integrity, far" not in text and "| a | 0.5, 1 | 0.75 [0.75, 0.75] | 50 [50, 50] |" in text
    assert draw(comparison).startswith(b"\x89PNG")
    part["matched"][0]["reached"] = 0.4
    assert "0.75 [0.75, 0.75] (in 40% of the replicates)" in strengths.markdown({"commit": ""} | comparison, "styles")


def make_image_run(strength: float, rows: dict[str, tuple[float, float]]) -> strengths.Run:
    """rows: (NLL of the forget image, Inception Score); the base has 3 and 10, the oracle 6 and 10."""

    def make(name: str, nll: float, score: float, reference: bool = False) -> Row:
        values = {"nll_forget": nll, "inception_score_judge": score}
        return make_cells(name, values, {"inception_score_judge": 0.1}, reference)

    references = {"base": make("base", 3.0, 10.0, True), "oracle": make("oracle", 6.0, 10.0, True)}
    return strengths.Run("images", strength, [0], [make(name, *values) for name, values in rows.items()], references)


def test_rows_that_forget_images_are_compared_at_equal_forgetting_and_at_equal_quality():
    weak = make_image_run(1.0, {"siss": (4.0, 10.0), "neggrad": (5.0, 7.0), "naive": (3.1, 10.0)})
    strong = make_image_run(4.0, {"siss": (8.0, 9.0), "neggrad": (9.0, 2.0), "naive": (3.2, 9.8)})
    comparison = strengths.compare([strong, weak])
    assert comparison["base"] == {"nll_forget": 3.0, "inception_score_judge": 10.0}
    forgetting, quality = comparison["comparisons"]
    assert (forgetting["level"], quality["level"]) == (6.0, 0.05)
    siss, neggrad, naive = forgetting["matched"]
    assert siss["inception_score_judge"]["value"] == pytest.approx(9.5) and siss["strength"]["value"] == 2.5
    assert neggrad["inception_score_judge"]["value"] == pytest.approx(5.75) and neggrad["behind"] == 1
    assert naive["outside"] == "NLL 3.10 to 3.20, not across the level"
    siss, neggrad, naive = quality["matched"]
    assert siss["nll_forget"]["value"] == pytest.approx(6.0) and "behind" not in siss
    assert neggrad["outside"] == "lost 30% to 80%, not across the level"
    assert naive["outside"] == "lost 0% to 2%, not across the level"
    comparison |= {"commit": "0" * 40, "paper": [{"row": "siss_0.5", "across": 8.09, "up": 9.2}]}
    text = strengths.markdown(comparison, "tshirt")
    assert "Where NLL of the forget image is 6.00 bits/dim, as of the oracle (code of" in text
    assert "Where Inception Score lost is 5.0 %, of the base's (code of" in text
    assert draw(comparison) == draw(comparison)


def test_rows_that_never_cross_in_one_replicate_are_not_ranked():
    """The first crosses in the estimates and in one half of the replicates, the second in the other half."""
    question = equal_footing.QUESTIONS["images"]["forgetting"]
    sides = np.array([0.0, 1.0, 1.0, -1.0, -1.0])

    def curve(sign: float) -> dict[str, np.ndarray]:
        nll = np.array([[3.0] * 5, 6.5 + sign * sides])
        return {"strength": np.array([[1.0], [2.0]]), "nll_forget": nll, "inception_score_judge": np.full((2, 5), 9.0)}

    one, two = strengths.match({"a": curve(1.0), "b": curve(-1.0)}, question, 6.0)
    assert one["reached"] == two["reached"] == 0.5
    assert two["behind"] is None and equal_footing.build_row(two, ["inception_score_judge"])[-1] == "–"


def test_the_papers_points_are_those_of_its_table():
    points = {point["row"]: (point["across"], point["up"]) for point in strengths.read_paper(ROOT / "reference")}
    assert points["siss_0.5"] == (8.09, 9.2) and points["pretrained"] == (1.0, 9.6)


def test_runs_that_cannot_be_compared_are_refused():
    first = make_concept_run(1.0, [make_row("a", 0.5, 1)])
    second = make_concept_run(1.0, [make_row("a", 0.5, 1)], (1,))
    with pytest.raises(UserError, match="different seeds"):
        strengths.compare([first, second])
    with pytest.raises(UserError, match="a: two revisions have the same strength"):
        strengths.compare([first, first])
    with pytest.raises(UserError, match="no row was unlearned"):
        strengths.compare([make_concept_run(1.0, [])])
    missing = Row("a", [Cell("0", 0, Path("cell"), absent="not run")])
    with pytest.raises(UserError, match="a: ua_training_prompts is absent: not run"):
        strengths.compare([make_concept_run(1.0, [missing])])


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
    for name, forgot in COMMITS.items():
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
    assert (
        written["comparisons"][0]["matched"][0][RANKED]["value"] == pytest.approx(0.55) and len(written["commit"]) == 40
    )
    assert (strengths.FOLDER / "cats.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["cats", "half"], "arguments: TASK REVISION REVISION"),
        (["dogs", "half", "whole"], "half has no images or concept task 'dogs'"),
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
        assert written["kind"] in equal_footing.QUESTIONS and path.with_suffix(".png").exists()
        for part in written["comparisons"]:
            assert part["question"] == "quality" or part["level"] == strengths.ERASED or written["kind"] == "images"
            equal_footing.build_table(written, part)
