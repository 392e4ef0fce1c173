"""Claims: the little language, the verdict rules, and every table's claims on its own rows."""

from pathlib import Path

import numpy as np
import pytest

from palinode.core.errors import UserError
from palinode.report import claims, expressions
from palinode.report.collect import Cell, Row, Task
from palinode.report.reference_tables import find_paper_value, read_mapping, read_tables

FOLDER = Path(__file__).parent.parent / "reference"
TABLES = read_tables(FOLDER)
CASES = [pytest.param(table, claim, id=claim["id"]) for table in TABLES for claim in table["claims"]]
METRICS = {
    "nll": {"ours": "nll_forget"},
    "p": {"ours": "forget_rate", "min_n": 100, "why": "rare"},
    "forwards": {"ours": "nfe_forward_per_sample"},
}
MAPPING = {"reference_rows": {"base": "pretrained"}, "tasks": {"toy": {"t": METRICS}}, "out_of_scope": {}}
RNG = np.random.default_rng(0)


def on_paper_rows(table: dict, claim: dict) -> bool | None:
    """A claim on the table's own numbers; None if one of them is missing."""
    check = expressions.parse(claim["check"], claim["id"])
    values = {reference: find_paper_value(table, reference) for reference in check.references}
    return None if None in values.values() else bool(check.evaluate(values))


@pytest.mark.parametrize("table,claim", CASES)
def test_holds_on_the_papers_own_rows(table, claim):
    assert on_paper_rows(table, claim) == claim["holds_on_rows"]


def test_own_claims_are_true_on_table_2_where_it_has_the_metrics():
    tables = {table["id"]: table for table in TABLES}
    own = [claim for claim in tables["small_tshirt_order"]["claims"] if "eps_error" not in claim["check"]]
    assert len(own) == 8
    for claim in own:
        assert on_paper_rows(tables["siss_mnist_tshirt_table2"], claim) is True, claim["id"]


def test_mapping_covers_every_table():
    mapping = read_mapping(FOLDER)
    known = {table["id"]: table for table in TABLES}
    mapped = {name for task in mapping["tasks"].values() for name in task}
    assert mapped | set(mapping["out_of_scope"]) == set(known) and not mapped & set(mapping["out_of_scope"])
    for task in mapping["tasks"].values():
        for name, metrics in task.items():
            assert set(metrics) <= set(known[name]["metrics"])


@pytest.mark.parametrize(
    "check,expected",
    [
        ("siss_0.5.nll > 2 * a.nll - 1", True),
        ("abs(a.nll - siss_0.5.nll) <= 5.0e-1 or a.nll == 2", True),
        ("min(a.nll, siss_0.5.nll, 3) + max(1, -a.nll) / 2 == 2.5", True),
        ("1 < a.nll < siss_0.5.nll", True),
        ("a.nll > 2 and a.nll > 0", False),
        ("1 / (a.nll - a.nll) > 1e300 and a.nll / (siss_0.5.nll - 4) > 0", True),
        ("max(a.nll, 0 * (1 / (a.nll - 2))) > 0", False),
    ],
)
def test_the_language(check, expected):
    """The last two: a division by zero is infinite, and nothing holds of what is undefined, as in NumPy."""
    parsed = expressions.parse(check, "c")
    assert set(parsed.references) <= {"a.nll", "siss_0.5.nll"}
    assert bool(parsed.evaluate({"a.nll": 2.0, "siss_0.5.nll": 4.0})) is expected


def test_values_may_be_replicates_and_numbers_together():
    parsed = expressions.parse("a.x < b.x and b.x < 3", "c")
    assert parsed.evaluate({"a.x": np.array([0.0, 2.0, 0.0]), "b.x": 1.0}).tolist() == [True, False, True]
    assert expressions.parse("1 < 2", "c").evaluate({}).shape == ()


@pytest.mark.parametrize(
    "check",
    [
        "__import__('os').system('true')",
        "a.nll",
        "a.nll + 1",
        "a > 1",
        "a.nll ** 2 > 1",
        "not a.nll > 1",
        "abs(a.nll, 1) > 0",
        "min(a.nll) > 1",
        "(lambda: 1)() > 0",
        "a.nll[0] > 1",
        "a.nll and a.nll > 1",
        "True > 0",
        "'x' > a.nll",
        "a.nll >",
        "a.nll in a.p",
        "sum(a.nll) > 0",
        "abs(x=a.nll) > 1",
        "a.nll != 1",
        "(a.nll > 0) > 0",
        "__1__ > a.nll",
        "",
        "a.nll > 1; 2",
        "a.nll > __0__",
        "abs > 1",
        "a.nll(1) > 1",
        "abs(a.nll > 0) > 0",
        "[a.nll][0] > 1",
        "abs(*a.nll) > 1",
        "1 / 0 > 1",
        "a.nll > (b := 1)",
        "a.nll > f'{1}'",
        f"a.nll > {'1 + ' * 1000} 1",
    ],
)
def test_anything_else_is_refused_by_name(check):
    with pytest.raises(UserError, match="claim my-claim: ") as raised:
        expressions.parse(check, "my-claim")
    assert "\n" not in str(raised.value)


def entry(value, n=1000, interval="bootstrap", reason=""):
    return {"value": value, "lo": None, "hi": None, "n": n, "interval": interval, "reason": reason}


def toy(replicates, metrics=None):
    """A task with rows base and mine (paper row `m`); base.nll = 1 in every replicate."""
    base = Cell("0", 0, Path("base"), {"nll_forget": entry(1.0)}, {"nll_forget": np.ones(200)})
    values = {"nll_forget": entry(2.0), **(metrics or {})}
    mine = Cell("0", 0, Path("mine"), values, {"nll_forget": replicates})
    rows = [Row("base", [base], reference=True), Row("mine", [mine], paper="m")]
    return Task("toy", "images", [0], rows, Path("."))


def verdict(check, task, holds=None, **more):
    claim = {"id": "c", "statement": "", "check": check, "holds_on_rows": holds, "caveats": [], **more}
    return claims.assess(task, MAPPING, {"id": "t", "rows": {}, "claims": [claim]}, claim)


@pytest.mark.parametrize(
    "true,expected",
    [(200, "holds"), (190, "holds"), (189, "undecided"), (11, "undecided"), (10, "fails"), (0, "fails")],
)
def test_verdict_by_share_of_replicates(true, expected):
    replicates = np.where(np.arange(200) < true, 2.0, 0.5)
    result = verdict("m.nll > pretrained.nll", toy(replicates), holds=True)
    assert (result.verdict, result.share, result.point) == (expected, true / 200, True)
    assert result.agrees == {"holds": True, "fails": False, "undecided": None}[expected]


def test_replicates_are_paired():
    noise = RNG.normal(size=200)
    task = toy(5 + noise)
    task.rows[0].cells[0].replicates["nll_forget"] = 4.9 + noise
    assert verdict("m.nll > pretrained.nll", task).verdict == "holds"


@pytest.mark.parametrize(
    "check,metrics,reason",
    [
        ("x.nll > 0", {}, "x.nll: no row of this run stands for x"),
        ("m.fid > 0", {}, "m.fid: no metric of ours stands for fid"),
        ("m.p == 0", {"forget_rate": entry(0.0, n=99)}, "m.p: 99 samples, at least 100 needed: rare"),
        ("m.p == 0", {"forget_rate": entry(None, reason="no weights")}, "m.p: no weights"),
        ("m.p == 0", {"forget_rate": entry(float("inf"))}, "m.p: the value is inf"),
        ("m.p == 0", {"forget_rate": entry(0.0)}, "m.p: no bootstrap replicates"),
        ("m.p == 0", {}, "m.p: not measured on this row"),
    ],
)
def test_untested_says_why(check, metrics, reason):
    result = verdict(check, toy(np.ones(200), metrics))
    assert result.verdict == "untested" and result.share is None and reason in result.reason


def test_exact_counts_need_no_replicates():
    task = toy(np.ones(200), {"nfe_forward_per_sample": entry(1.0, interval="none")})
    assert verdict("m.forwards == 1", task).verdict == "holds"


def test_what_holds_by_construction_is_not_counted_as_tested():
    task = toy(np.ones(200), {"nfe_forward_per_sample": entry(1.0, interval="none")})
    result = verdict("m.forwards == 1", task, by_construction=True)
    assert (result.verdict, result.share, result.point) == ("by construction", None, True)
    assert verdict("m.forwards == 2", task, by_construction=True).verdict == "fails", "unless it does not hold"


def test_two_rows_for_one_paper_row_are_refused():
    task = toy(np.ones(200))
    task.rows.append(Row("twin", [], paper="m"))
    with pytest.raises(UserError, match="rows mine and twin both stand for m"):
        verdict("m.nll > 0", task)
