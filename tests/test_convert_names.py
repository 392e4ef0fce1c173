"""tools/convert_names.py: old names to new, files of old runs, and numbers across the commit that renamed them."""

import json
import subprocess
from pathlib import Path

import convert_names
import pytest
import yaml

from palinode.core.errors import UserError
from palinode.core.io import read_csv, write_json, write_text
from palinode.metrics import registry
from palinode.report import records

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "ua_t0": "ua_training_prompts",
    "ua_t4": "ua_compositions",
    "integrity_t0_judge": "integrity_training_prompts_judge",
    "integrity_empty_judge": "integrity_null_prompt_judge",
    "right_other_domain": "accuracy_other_domain",
    "change_t1_judge": "drift_new_attributes_judge",
    "change_lpips_alex": "drift_lpips_alex",
    "oracle_change_empty_judge": "oracle_drift_null_prompt_judge",
    "forward_passes": "nfe_forward",
    "backwards_per_sample": "nfe_backward_per_sample",
    "memorised_original": "memorized_original",
    "in_turn_memorised_original": "sequential_memorized_original",
    "in_turn_integrity_ordinary_judge": "sequential_integrity_ordinary_judge",
    "target_prefix_200": "target_prompt_tuning_200",
    "prefix_steps": "prompt_tuning_steps",
    "target_relearn_5": "target_relearn_5",
    "target_entropy": "target_entropy",
}
OLD = """family,task,method,seed,metric,value,lo,hi,n,interval,reason
concept,cats,other,0,ua_t0,0.25,0.1,0.4,48,wilson,
concept,cats,other,all,ua_t0,0.25,0.1,0.4,48,wilson,
data,shirt,base,0,nll_forget,,,,0,none,"no model, so no likelihood"
prompts,emoji,naive,1,in_turn_memorised_original,1,0.6,1,8,wilson,
prompts,emoji,naive,all,in_turn_memorised_original,1,0.6,1,2,wilson-t,
"""


@pytest.mark.parametrize("old,new", NAMES.items())
def test_metrics_have_new_names_which_stay(old, new):
    assert convert_names.convert_metric(old) == new == convert_names.convert_metric(new)
    registry.lookup(new)


def test_attacks_and_kinds_are_those_of_today():
    assert {name.replace("-", "_") for name in convert_names.ATTACKS.values()} <= registry.ATTACKS.keys()
    assert set(convert_names.KINDS.values()) <= registry.KINDS.keys()
    assert set(convert_names.PARTS.values()) <= registry.PROMPT_SETS.keys()


@pytest.fixture
def folder(tmp_path):
    claims = [{"id": "a", "statement": "leaves fewer memorised pictures", "reason": "x.memorised_in_turn: absent"}]
    write_text(tmp_path / "metrics.csv", OLD)
    write_json(tmp_path / "claims.json", claims)
    return tmp_path


def test_a_run_gets_the_new_columns_and_keeps_its_numbers(folder):
    convert_names.convert_run(folder)
    text = (folder / "metrics.csv").read_text()
    assert text.splitlines() == [
        ",".join(records.FIELDS),
        "concept,cats,0,other-seed,0,ua_training_prompts,0.25,0.1,0.4,48,fraction,up,wilson,",
        "concept,cats,all,other-seed,all,ua_training_prompts,0.25,0.1,0.4,48,fraction,up,wilson,",
        'images,shirt,0,base,0,nll_forget,,,,0,bits/dim,up,none,"no model, so no likelihood"',
        "prompts,emoji,all,naive,1,sequential_memorized_original,1,0.6,1,8,fraction,down,wilson,",
        "prompts,emoji,all,naive,all,sequential_memorized_original,1,0.6,1,2,fraction,down,wilson-t,",
    ]
    (claim,) = json.loads((folder / "claims.json").read_text())
    assert claim["statement"] == "leaves fewer memorized pictures"
    assert claim["reason"] == "x.sequential_memorized: absent"


def test_a_converted_run_stays_as_it_is(folder):
    convert_names.convert_run(folder)
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    convert_names.run("run", str(folder))
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == before


def test_the_published_runs_have_the_new_names():
    for path in ROOT.glob("results/published/*/metrics.csv"):
        lines = read_csv(path)
        assert tuple(lines[0]) == records.FIELDS, path
        assert all(convert_names.convert_metric(line["metric"]) == line["metric"] for line in lines), path


def test_comparisons_at_equal_forgetting_are_converted(tmp_path):
    path = tmp_path / "cats.json"
    matched = [{"row": "a", "right_near": {"value": 1}}]
    write_json(path, {"level": 0.9, "points": [{"row": "a", "ua_t0": 0.5}], "matched": matched})
    convert_names.run("strengths", str(path))
    converted = {
        "kind": "concept",
        "points": [{"row": "a", "ua_training_prompts": 0.5}],
        "comparisons": [
            {"question": "forgetting", "level": 0.9, "matched": [{"row": "a", "accuracy_near": {"value": 1}}]}
        ],
    }
    assert json.loads(path.read_text()) == converted
    convert_names.run("strengths", str(path))
    assert json.loads(path.read_text()) == converted, "a file of the new form is left as it is"


def test_numbers_are_compared_across_the_renaming(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_json(Path("results/metrics.json"), {"cats": {"other": {"ua_t0": 0.25, "right_near": 0.5, "ua_t1": 0.1}}})
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "old"],
    ):
        subprocess.run(["git", *command], check=True)
    renamed = {"ua_training_prompts": 0.25, "accuracy_near": 0.75, "accuracy_far": 1.0}
    write_json(Path("results/metrics.json"), {"cats": {"other-seed": renamed}})
    convert_names.run("diff", "HEAD")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["task", "row", "metric", "old", "new", "difference"],
        ["cats", "other-seed", "accuracy_near", "0.5", "0.75", "+0.25"],
        ["cats", "other-seed", "ua_new_attributes", "0.1", "-"],
        ["cats", "other-seed", "accuracy_far", "-", "1"],
        ["1", "of", "3", "numbers", "are", "equal"],
    ]
    convert_names.run("diff", "HEAD", "HEAD")
    assert capsys.readouterr().out == "3 of 3 numbers are equal\n"


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], "arguments: diff OLD"),
        (["diff"], "arguments: diff OLD"),
        (["diff", "nowhere"], "nowhere: "),
        (["run", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        convert_names.run(*arguments)
    assert "\n" not in str(raised.value)


def test_old_parameters_of_a_published_run_are_kept():
    for path in ROOT.glob("results/published/*/params.yaml"):
        parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert parameters["seeds"] and parameters["rows"], "what a page reads of them"
