"""Parameters: typed, complete, and wrong ones named in one line."""

import csv
import itertools
from pathlib import Path

import pytest
import tune
import tune_concept
import tune_prompts
import yaml

from palinode import params
from palinode.core.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def change(tmp_path):
    """Load the shipped params.yaml with some keys changed; a value of None deletes the key."""

    def load(**changes):
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        for path, value in changes.items():
            *parents, last = path.split("/")
            block = content
            for key in parents:
                block = block[key]
            if value is None:
                del block[last]
            else:
                block[last] = value
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(content))
        return params.load(file)

    return load


def test_the_shipped_file_is_valid():
    loaded = params.load(ROOT / "params.yaml")
    assert set(loaded.data.rows) <= set(loaded.rows)


def test_a_number_written_as_a_string_is_that_number(change):
    """DVC writes 3e-05 for -S rows.naive.lr=3e-5, which YAML reads as a string."""
    loaded = change(**{"rows/naive/lr": "3e-05", "rows/naive/steps": "20"})
    assert loaded.rows["naive"].lr == 3e-5 and loaded.rows["naive"].steps == 20


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("rows/naive/lr", "fast", r"rows\.naive\.lr: Input should be a valid number.*'fast'"),
        ("rows/naive/lr", True, r"rows\.naive\.lr: should be a number"),
        ("rows/naive/lr", float("nan"), r"rows\.naive\.lr"),
        ("rows/naive/steps", 0, r"rows\.naive\.steps"),
        ("rows/naive/steps", 1.5, r"rows\.naive\.steps"),
        ("rows/naive/rate", 1, r"rows\.naive\.rate: unknown parameter"),
        ("rows/naive/lr", None, r"rows\.naive\.lr: missing parameter"),
        ("tasks/tshirt/data/size", None, r"tasks\.tshirt\.data\.size: missing parameter"),
        ("sedes", [1], r"sedes: unknown parameter"),
        ("text_bases/emoji/denoiser/precision", "bf16", r"text_bases\.emoji\.denoiser: precision is not used"),
        ("seeds", [], "seeds: the list is empty"),
        ("seeds", [1, 2, 1], "seeds: repeated: 1"),
        ("data/rows", [], r"data\.rows: the list is empty"),
        ("data/rows", ["naive", "naive"], r"data\.rows: repeated: naive"),
        ("data/tasks", ["tshirts"], r"data\.tasks: 'tshirts' is not defined under `tasks`"),
        ("data/rows", ["sis-05"], r"data\.rows: 'sis-05' is not defined under `rows`"),
        ("rows/siss-0.5", {"method": "siss", "lr": 1, "steps": 1}, r"rows: the name 'siss-0\.5' may only use"),
        ("tasks/tshirt/model", None, "tasks.tshirt: needs either `base`, or `model` and `pretrain`"),
        ("tasks/tshirt/overrides", {"nobody": {"lr": 1}}, r"tasks\.tshirt\.overrides: 'nobody'"),
    ],
)
def test_bad_parameters_are_named(change, path, value, words):
    with pytest.raises(UserError, match=words) as caught:
        change(**{path: value})
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(UserError, match="not found: run from the repository's root"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(UserError, match="is not valid YAML"):
        params.load(tmp_path / "params.yaml")


def test_a_task_overrides_a_row(change):
    loaded = change(**{"tasks/tshirt/overrides": {"siss-05": {"lr": 5e-6, "options": {"norm": 500}}}})
    row = loaded.row("tshirt", "siss-05")
    assert row.lr == 5e-6 and row.steps == loaded.rows["siss-05"].steps and row.options == {"lam": 0.5, "norm": 500}
    assert loaded.row("tshirt", "naive") == loaded.rows["naive"]


def read(name: str) -> list[dict[str, str]]:
    with open(ROOT / "results" / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_learning_rates_are_the_winners_of_the_search():
    trials, loaded = read("tuning.csv"), params.load(ROOT / "params.yaml")
    measured = ("eps_error_forget", "inception_score_judge")
    base, *trials = [trial | {name: float(trial[name]) for name in measured} for trial in trials]
    assert base["row"] == "base" and {trial["row"] for trial in trials} == set(loaded.data.rows)
    for row in loaded.data.rows:
        tried = [trial for trial in trials if trial["row"] == row]
        assert sorted(float(trial["lr"]) for trial in tried) == sorted(tune.GRID), row
        winner = tune.choose(tried, base)
        assert [trial["chosen"] == "1" for trial in tried] == [trial is winner for trial in tried], row
        assert loaded.row("tshirt", row).lr == float(winner["lr"]), row


def test_learning_rates_of_concept_tasks_are_the_winners_of_their_search():
    trials, loaded = read("tuning-concept.csv"), params.load(ROOT / "params.yaml")
    winners = {(trial["task"], trial["row"]): float(trial["lr"]) for trial in trials if trial["chosen"] == "1"}
    assert loaded.concept.strength == 1
    for task in loaded.concept.tasks:
        for row in (name for name in loaded.concept.rows if loaded.rows[name].steps > 1):
            searched = tune_concept.TWINS.get(row, row)
            assert loaded.row(task, row).lr == winners[f"{task}-val", searched], (task, row)
    for task, row in winners:
        tried = [trial for trial in trials if (trial["task"], trial["row"]) == (task, row)]
        assert sorted(float(trial["lr"]) for trial in tried) == sorted(tune_concept.grid(loaded, task))
        numbers = [trial | {name: float(trial[name]) for name in tune_concept.METRICS} for trial in tried]
        assert tune_concept.choose(numbers)["chosen"] == "1"


def test_learning_rates_of_memorized_prompts_are_the_winners_of_their_search():
    trials, loaded = read("tuning-prompts.csv"), params.load(ROOT / "params.yaml")
    for task, row in itertools.product(loaded.prompts.tasks, loaded.prompts.rows):
        tried = [trial for trial in trials if (trial["task"], trial["row"]) == (f"{task}-val", row)]
        assert sorted(float(trial["lr"]) for trial in tried) == sorted(tune_prompts.GRID)
        numbers = [trial | {name: float(trial[name]) for name in tune_prompts.METRICS} for trial in tried]
        winner = tune_prompts.choose(numbers)
        assert winner["chosen"] == "1" and loaded.row(task, row).lr == float(winner["lr"]), (task, row)
