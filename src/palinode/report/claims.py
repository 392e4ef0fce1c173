"""Evaluate the claims of `reference/*.yaml` on this run, by paired bootstrap.

A claim's `check` is an expression over `row.metric` (a reference is split at its LAST dot, since row ids may contain
dots) with + - * /, comparisons, and, or, abs(), min(), max(). It is evaluated once per bootstrap replicate; replicates
are paired across rows, so a difference of two rows keeps their correlation.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import yaml

from palinode.errors import UserError
from palinode.report.collect import Estimate, Task

HOLDS, FAILS = 0.95, 0.05  # shares of replicates
VERDICTS = ("holds", "fails", "undecided", "untested")
REFERENCE = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+")
ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
COMPARISONS = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
               ast.Eq: operator.eq}
FUNCTIONS = {"abs": (np.abs, 1, 1), "min": (np.minimum, 2, None), "max": (np.maximum, 2, None)}
Values = Mapping[str, np.ndarray | float]


@dataclass(frozen=True)
class Check:
    """A parsed expression: its references `row.metric` in order; `evaluate({reference: value or [R]}) -> bool [R]`."""

    references: tuple[str, ...]
    evaluate: Callable[[Values], np.ndarray]


@dataclass(frozen=True)
class Quantity:
    """One reference of a claim: this run's estimate beside the paper's number."""

    reference: str
    ours: Estimate
    paper: float | None


@dataclass(frozen=True)
class Result:
    """A claim's outcome. `share` of replicates in which it is true and `point` (true at the estimates) if tested."""

    claim: dict
    table: dict
    task: str
    verdict: str
    reason: str = ""
    share: float | None = None
    point: bool | None = None
    quantities: tuple[Quantity, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether the verdict is the one the table's own rows give; None if one of the two is open."""
        expected = self.claim["holds_on_rows"]
        if expected is None or self.verdict not in ("holds", "fails"):
            return None
        return expected == (self.verdict == "holds")


def parse(expression: str, claim: str) -> Check:
    """Parse a `check` safely; anything outside the mini-language is a UserError naming the claim."""
    names: dict[str, str] = {}
    text = REFERENCE.sub(lambda match: names.setdefault(match[0], f"__{len(names)}__"), expression)

    def refuse(what: str) -> UserError:
        return UserError(f"claim {claim}: {what} in check {expression!r}")

    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise refuse("syntax error") from error
    if "__" in REFERENCE.sub("", expression) or len(text) > 2000:
        raise refuse("unsupported text")
    identifiers = {identifier: reference for reference, identifier in names.items()}
    truth = _truth(body, identifiers, refuse)

    def evaluate(values: Values) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(truth(values), dtype=bool)

    return Check(tuple(names), evaluate)


def _truth(node: ast.expr, identifiers: dict[str, str], refuse: Callable[[str], UserError]) -> Callable:
    """Compile a node that must be a truth value: and, or, a (chained) comparison of numbers."""
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, identifiers, refuse) for value in node.values]
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return lambda values: reduce(join, [part(values) for part in parts])
    if isinstance(node, ast.Compare):
        if any(type(op) not in COMPARISONS for op in node.ops):
            raise refuse("unsupported comparison")
        sides = [_number(side, identifiers, refuse) for side in (node.left, *node.comparators)]
        tests = [COMPARISONS[type(op)] for op in node.ops]

        def compare(values: Values) -> np.ndarray:
            numbers = [side(values) for side in sides]
            pairs = zip(tests, numbers, numbers[1:], strict=False)
            return reduce(np.logical_and, [test(left, right) for test, left, right in pairs])

        return compare
    raise refuse(f"{type(node).__name__} where a comparison is needed")


def _number(node: ast.expr, identifiers: dict[str, str], refuse: Callable[[str], UserError]) -> Callable:
    """Compile a node that must be a number: literal, reference, + - * /, sign, abs, min, max."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return lambda values: np.float64(node.value)
    if isinstance(node, ast.Name) and node.id in identifiers:
        return lambda values: np.asarray(values[identifiers[node.id]], dtype=np.float64)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        left, right = (_number(side, identifiers, refuse) for side in (node.left, node.right))
        return lambda values: ARITHMETIC[type(node.op)](left(values), right(values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand, identifiers, refuse)
        return lambda values: -inner(values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        function, least, most = FUNCTIONS[node.func.id]
        if node.keywords or len(node.args) < least or (most and len(node.args) > most):
            raise refuse(f"wrong arguments of {node.func.id}()")
        arguments = [_number(argument, identifiers, refuse) for argument in node.args]
        if function is np.abs:
            return lambda values: np.abs(arguments[0](values))
        return lambda values: reduce(function, [argument(values) for argument in arguments])
    raise refuse(f"unsupported {type(node).__name__}" + (f" {node.id!r}" if isinstance(node, ast.Name) else ""))


def read_tables(folder: Path) -> list[dict]:
    """All tables of `folder/*.yaml` but `mapping.yaml`, in file order; an id used twice is a UserError."""
    tables, seen = [], set()
    for path in sorted(folder.glob("*.yaml")):
        if path.name == "mapping.yaml":
            continue
        for table in yaml.safe_load(path.read_text(encoding="utf-8")):
            for name in (table["id"], *(claim["id"] for claim in table["claims"])):
                if name in seen:
                    raise UserError(f"{path}: the id {name} is used twice")
                seen.add(name)
            tables.append(table)
    return tables


def read_mapping(folder: Path) -> dict:
    """`mapping.yaml`: how this project's tasks, rows and metrics correspond to the tables'."""
    return yaml.safe_load((folder / "mapping.yaml").read_text(encoding="utf-8"))


def paper_value(table: dict, reference: str) -> float | None:
    """The table's own number for `row.metric`; None if it has none."""
    row, metric = reference.rsplit(".", 1)
    return table["rows"].get(row, {}).get(metric)


def paper_rows(task: Task, mapping: dict) -> dict[str, str]:
    """Paper row id -> name of this run's row: the `paper` of each row's settings, and the reference rows."""
    rows = {paper: name for name, paper in mapping["reference_rows"].items()}
    for row in task.rows:
        paper = row.settings.get("paper")
        if paper is None:
            continue
        if paper in rows:
            raise UserError(f"task {task.name}: rows {rows[paper]} and {row.name} both stand for paper row {paper}")
        rows[paper] = row.name
    return rows


def _estimate(task: Task, mapping: dict, metrics: dict, reference: str) -> Estimate:
    """This run's estimate for a claim's reference; with a reason in place of a value if it cannot serve."""
    paper_row, metric = reference.rsplit(".", 1)
    rows = paper_rows(task, mapping)
    if paper_row not in rows:
        return Estimate(reason=f"no row of this run stands for {paper_row}")
    if metric not in metrics:
        return Estimate(reason=f"no metric of ours stands for {metric}")
    found = task.row(rows[paper_row]).estimate(metrics[metric]["ours"])
    least = metrics[metric].get("min_n", 0)
    if found.value is not None and found.samples < least:
        why = metrics[metric]["why"]
        return Estimate(reason=f"{found.samples} samples, at least {least} needed: {why}")
    if found.value is not None and found.replicates is None and found.interval != "none":
        return Estimate(reason="no bootstrap replicates")
    if found.value is not None and found.replicates is not None and np.isnan(found.replicates).any():
        return Estimate(reason="undefined in some bootstrap replicates")
    return found


def assess(task: Task, mapping: dict, table: dict, claim: dict) -> Result:
    """Test one claim on one task's cells. An exact count (interval `none`) is the same in every replicate."""
    check = parse(claim["check"], claim["id"])
    metrics = mapping["tasks"][task.name][table["id"]]
    quantities = tuple(Quantity(reference, _estimate(task, mapping, metrics, reference), paper_value(table, reference))
                       for reference in check.references)
    reason = _missing(quantities) or _unmet(task, mapping, metrics, claim)
    if reason:
        return Result(claim, table, task.name, "untested", reason, quantities=quantities)
    replicates = {item.reference: item.ours.value if item.ours.replicates is None else item.ours.replicates
                  for item in quantities}
    share = float(check.evaluate(replicates).mean())
    point = bool(check.evaluate({item.reference: item.ours.value for item in quantities}))
    verdict = "holds" if share >= HOLDS else "fails" if share <= FAILS else "undecided"
    return Result(claim, table, task.name, verdict, share=share, point=point, quantities=quantities)


def _missing(quantities: tuple[Quantity, ...]) -> str:
    """Which quantities have no value, by reason; empty if all have one."""
    reasons: dict[str, list[str]] = {}
    for item in quantities:
        if item.ours.value is None:
            reasons.setdefault(item.ours.reason, []).append(item.reference)
    return "; ".join(f"{', '.join(references)}: {reason}" for reason, references in reasons.items())


def _unmet(task: Task, mapping: dict, metrics: dict, claim: dict) -> str:
    """Why a claim that `requires` something does not apply; empty if it does."""
    if "requires" not in claim:
        return ""
    needed = parse(claim["requires"], claim["id"])
    values = {reference: _estimate(task, mapping, metrics, reference).value for reference in needed.references}
    if None not in values.values() and needed.evaluate(values):
        return ""
    found = ", ".join(f"{name} = {'absent' if value is None else f'{value:.3g}'}" for name, value in values.items())
    return f"it applies only where {claim['requires']}; here {found}"


def evaluate(tasks: list[Task], folder: Path) -> list[Result]:
    """Every claim of every table, on each task that the mapping gives the table; untested with its reason else."""
    mapping, results = read_mapping(folder), []
    for table in read_tables(folder):
        fitting = [task for task in tasks if table["id"] in mapping["tasks"].get(task.name, {})]
        reason = mapping["out_of_scope"].get(table["id"], "no task of this run produces this table's numbers")
        for claim in table["claims"]:
            results += [assess(task, mapping, table, claim) for task in fitting]
            if not fitting:
                results.append(Result(claim, table, "", "untested", reason))
    return results
