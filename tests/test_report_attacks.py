"""The report's part on attacks, from made-up cells of a concept task."""

import shutil

import pytest
from test_report_collect import absent, metric, rate, write_evaluation
from test_report_concept import REPOSITORY, make_both

from palinode.core import io
from palinode.core.errors import UserError
from palinode.metrics import registry
from palinode.params.report_settings import Attacked
from palinode.report import build, collect, tables
from palinode.report.averages import Estimate
from palinode.report.reference_tables import read_mapping
from palinode.report.sections import attack_results

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

MAPPING = read_mapping(REPOSITORY / "reference")
STEPS = {"relearn": (0, 5, 20), "prompt-tuning": (0, 40)}
SHARES = {"base": (1.0, 1.0, 1.0), "salun": (0.0, 0.3, 0.8), "uce": (0.05, 0.1, 0.2)}


def attack(cells, row: str) -> None:
    """What the stage writes for both attacks."""
    for name, steps in STEPS.items():
        short = name.replace("-", "_")
        shares = SHARES[row][: len(steps)]
        entries = {f"target_{short}_{step}": rate(share, 20) for step, share in zip(steps, shares, strict=True)}
        back = [step for step, share in zip(steps, shares, strict=True) if share >= 0.5]
        entry = metric(back[0], 0, n=20) if back else absent(f"the target is not back within {steps[-1]} steps")
        if row == "salun" and back:
            entry |= {"lo": 5, "hi": None}
        folder = cells / row / "0/attacks" / name
        write_evaluation(folder, entries | {f"{short}_steps": entry}, {})
        io.write_json(folder / "budget.json", {"pictures": 256, "steps": list(steps[1:]), "lr": 0.01, "batch": 16})


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    root = tmp_path_factory.mktemp("attacks")
    run = make_both(root)
    for row in SHARES:
        attack(root / "out/cells/mnist-zero/0", row)
    listed = [Attacked(task="mnist-zero", row=row, attacks=list(STEPS)) for row in SHARES]
    run = run.model_copy(update={"attacked": listed})
    return root, run, collect.collect(run, root)[1]


def test_the_table_has_shares_by_step_and_when_the_target_is_back(attacked):
    shown = attack_results.view(attacked[2], MAPPING)
    table = shown["table"]
    assert [entry.name for entry in table.columns] == [
        "target_relearn_0",
        "target_relearn_5",
        "target_relearn_20",
        "relearn_steps",
        "target_prompt_tuning_0",
        "target_prompt_tuning_40",
        "prompt_tuning_steps",
    ]
    cells = {row.name: [(cell.value, cell.interval) for cell in row.cells] for row in table.rows}
    assert list(cells) == ["base", "salun", "uce"], "rows that were not attacked are not shown"
    assert cells["base"][3][0] == "0" and cells["salun"][3] == ("20", "[5, ∞]")
    assert cells["salun"][1] == ("30", "[15, 52]")
    assert cells["uce"][3] == ("> 20", "") and cells["uce"][6] == ("> 40", "")
    assert shown["budgets"]["Prompt tuning"] == {"pictures": 256, "steps": [40], "lr": 0.01, "batch": 16}
    svg = shown["figure"]
    assert svg.startswith("<svg") and ">Relearning<" in svg and ">oracle<" not in svg


def test_the_page_and_the_csv_have_it(attacked):
    root, run, _ = attacked
    build.build(run, root)
    html = (root / "report/index.html").read_text()
    assert html.count("Gone, or only hard to reach?") == 1 and "[5, ∞]" in html and "lower bound" in html
    assert "Prompt tuning: pictures 256, steps [40], lr 0.01, batch 16." in html
    lines = (root / "results/metrics.csv").read_text()
    assert "concept,mnist-zero,all,uce,all,target_relearn_20,0.2,0.08" in lines
    assert "steps,up,none,the target is not back within 20 steps" in lines


def test_seeds_add_no_pictures(attacked, tmp_path):
    root, run, _ = attacked
    cells = tmp_path / "out/cells/mnist-zero/0"
    shutil.copytree(root / "out", tmp_path / "out")
    for row in run.tasks[1].rows:
        shutil.copytree(cells / row / "0", cells / row / "1")
    (task,) = collect.collect(run.model_copy(update={"seeds": [0, 1], "tasks": run.tasks[1:]}), tmp_path)
    rows = {row.name: row.cells for row in attack_results.view(task, MAPPING)["table"].rows}
    row = task.row("salun")
    both = row.estimate("target_relearn_5")
    single = row.cells[0].estimate("target_relearn_5")
    assert (both.n, both.interval, both.value) == (2, "seeds", single.value)
    assert both.hi - both.lo == pytest.approx(single.hi - single.lo, rel=0.25), "more seeds are not more pictures"
    assert rows["uce"][3].value == "> 20" and rows["uce"][3].interval == "seed 0"


def test_nothing_attacked_has_no_part_and_a_missing_attack_is_named(attacked):
    root, run, _ = attacked
    bare = run.model_copy(update={"attacked": []})
    assert attack_results.view(collect.collect(bare, root)[1], MAPPING) is None
    listed = [Attacked(task="mnist-zero", row="finetune", attacks=["relearn"])]
    with pytest.raises(UserError, match=r"finetune/0 is not evaluated: .*attacks/relearn/metrics.json is missing"):
        collect.collect(run.model_copy(update={"attacked": listed}), root)


def test_an_absent_attack_leaves_the_cell_as_it_is(attacked, tmp_path):
    root, run, task = attacked
    shutil.copytree(root / "out", tmp_path / "out")
    folder = tmp_path / "out/cells/mnist-zero/0/uce/0/attacks/relearn"
    shutil.rmtree(folder)
    io.write_absence(folder, "the row is absent")
    row = collect.collect(run, tmp_path)[1].row("uce")
    assert row.estimate("relearn_steps").value is None and row.estimate("ua_training_prompts").value == 0.85
    assert attack_results.list_attacked(task)[-1].name == "uce"


def test_an_open_end_is_infinite():
    assert tables.show_interval(Estimate(20, 5, None), registry.lookup("relearn_steps")) == "[5, ∞]"
