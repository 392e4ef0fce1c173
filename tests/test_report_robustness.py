"""The report's part on attacks, from made-up cells of a concept task."""

import shutil

import pytest
import report as stage
from project import ROOT
from test_report_build import make_run, metric
from test_report_concept import write

from palinode import io
from palinode.errors import UserError
from palinode.metrics.record import wilson
from palinode.report import build, claims, collect, robustness, tables

MAPPING = claims.read_mapping(ROOT / "reference")
STEPS = {"relearn": (0, 5, 20), "prefix": (0, 40)}
SHARES = {"base": (1.0, 1.0, 1.0), "salun": (0.0, 0.3, 0.8), "uce": (0.05, 0.1, 0.2)}


def share(value: float, n: int = 20) -> dict:
    lo, hi = wilson(value, n)
    return metric(value, 0, "down", "wilson", n) | {"lo": lo, "hi": hi}


def attack(cells, row: str, seed: int = 0) -> None:
    """What the stage writes for both attacks."""
    for name, steps in STEPS.items():
        found = {f"target_{name}_{step}": share(it) for step, it in zip(steps, SHARES[row], strict=False)}
        first = next((step for step, it in zip(steps, SHARES[row], strict=False) if it >= 0.5), None)
        entry = metric(first, 0, "up", "bootstrap", 20) if first is not None else {
            "value": None, "lo": None, "hi": None, "n": 0, "unit": "steps", "direction": "up", "interval": "none",
            "reason": f"the target is not back within {steps[-1]} steps"}  # fmt: skip
        if row == "salun" and first:
            entry |= {"lo": 5, "hi": None}
        folder = cells / row / str(seed) / "robustness" / name
        io.write_json(folder / "metrics.json", found | {f"{name}_steps": entry})
        io.write_arrays(folder / "replicates.npz", {})
        io.write_json(folder / "budget.json", {"pictures": 256, "steps": list(steps[1:]), "lr": 0.01, "batch": 16})


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    root = tmp_path_factory.mktemp("robustness")
    settings = make_run(root)
    settings["families"]["mnist-zero"] = "concept"
    settings["tasks"]["mnist-zero"] = write(root)
    for row in SHARES:
        attack(root / "out/cells/mnist-zero", row)
    settings["attacked"] = [["mnist-zero", row, ["relearn", "prefix"]] for row in SHARES]
    return root, settings, collect.collect(settings, root)[1]


def test_the_table_has_shares_by_step_and_when_the_target_is_back(attacked):
    shown = robustness.view(attacked[2], MAPPING)
    table = shown["table"]
    assert [column.metric for column in table.columns] == [
        "target_relearn_0", "target_relearn_5", "target_relearn_20", "relearn_steps",
        "target_prefix_0", "target_prefix_40", "prefix_steps",
    ]  # fmt: skip
    cells = {name: [(cell.value, cell.interval) for cell in row] for name, _, row in table.rows}
    assert list(cells) == ["base", "salun", "uce"], "rows that were not attacked are not shown"
    assert cells["base"][3][0] == "0" and cells["salun"][3] == ("20", "[5, ∞]")
    assert cells["salun"][1] == ("30", "[15, 52]")
    assert cells["uce"][3] == ("> 20", "") and cells["uce"][6] == ("> 40", "")
    assert shown["budgets"]["Prefix"] == {"pictures": 256, "steps": [40], "lr": 0.01, "batch": 16}
    svg = shown["figure"]
    assert svg.startswith("<svg") and ">Relearning<" in svg and ">oracle<" not in svg


def test_the_page_and_the_csv_have_it(attacked):
    root, settings, _ = attacked
    build.build(settings, root)
    html, records = (root / "report/index.html").read_text(), (root / "results/metrics.csv").read_text()
    assert html.count("Gone, or only hard to reach?") == 1 and "[5, ∞]" in html and "lower bound" in html
    assert "Prefix: pictures 256, steps [40], lr 0.01, batch 16." in html
    assert "concept,mnist-zero,uce,all,target_relearn_20,0.2,0.08" in records
    assert "relearn_steps,,,,0,none,the target is not back within 20 steps" in records


def test_seeds_add_no_pictures(attacked, tmp_path):
    root, settings, _ = attacked
    cells = tmp_path / "out/cells"
    shutil.copytree(root / "out", tmp_path / "out")
    for row in settings["tasks"]["mnist-zero"]:
        shutil.copytree(cells / "mnist-zero" / row / "0", cells / "mnist-zero" / row / "1")
    only = settings | {"seeds": [0, 1], "tasks": {"mnist-zero": settings["tasks"]["mnist-zero"]}}
    (task,) = collect.collect(only, tmp_path)
    table = {name: row for name, _, row in robustness.view(task, MAPPING)["table"].rows}
    row = task.row("salun")
    found, alone = (one.estimate("target_relearn_5") for one in (row, row.cells[0]))
    assert (found.n, found.interval) == (2, "wilson-t") and (found.lo, found.hi) == (alone.lo, alone.hi)
    assert table["uce"][3].value == "> 20" and table["uce"][3].interval == "seed 0"


def test_nothing_attacked_has_no_part_and_a_missing_attack_is_named(attacked):
    root, settings, _ = attacked
    assert robustness.view(collect.collect(settings | {"attacked": []}, root)[1], MAPPING) is None
    missing = settings | {"attacked": [["mnist-zero", "finetune", ["relearn"]]]}
    with pytest.raises(UserError, match=r"finetune/0 is not evaluated: .*robustness/relearn/metrics.json is missing"):
        collect.collect(missing, root)


def test_attacks_that_no_list_names_are_removed(attacked, tmp_path, monkeypatch):
    root, settings, _ = attacked
    shutil.copytree(root / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    stage.prune(settings | {"attacked": [["mnist-zero", "uce", ["prefix"]]]})
    assert [path.as_posix() for path in stage.CELLS.glob("*/*/*/robustness/*")] == [
        "out/cells/mnist-zero/uce/0/robustness/prefix"]
    assert not (stage.CELLS / "mnist-zero/salun/0/robustness").exists()
    assert (stage.CELLS / "mnist-zero/salun/0/evaluation/metrics.json").exists()


def test_an_open_end_is_infinite():
    item = collect.Estimate(20, 5, None)
    assert tables.show_interval(item, tables.Column("relearn_steps", "", "", 0)) == "[5, ∞]"
