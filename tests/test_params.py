"""Parameters: typed, complete, and wrong ones named in one line."""

from collections import defaultdict
from pathlib import Path

import pytest
import tune
import yaml
from project import ROOT, set_key

from palinode import methods, params
from palinode.core.errors import UserError
from palinode.core.io import read_csv
from palinode.params import KINDS
from palinode.pipeline import planning


@pytest.fixture(scope="module")
def shipped() -> params.Params:
    return params.load(ROOT / "params.yaml")


@pytest.fixture
def change(tmp_path):
    """Load the shipped params.yaml with some keys changed; a value of None deletes the key."""

    def load(**changes):
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        for path, value in changes.items():
            set_key(content, path, value)
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(content))
        return params.load(file)

    return load


def test_the_shipped_file_is_valid(shipped):
    for kind in KINDS:
        enabled = shipped.enabled(kind)
        assert enabled.tasks and set(enabled.rows) <= set(shipped.rows)


def test_every_plan_file_is_read_back_as_it_was_written(shipped):
    """Every field is written, so that what counts is a field's value, not whether somebody wrote it."""
    for plan in planning.list_plans(shipped):
        written = plan.settings.model_dump(mode="json")
        assert type(plan.settings).model_validate(written) == plan.settings, plan.path


def test_a_number_written_as_a_string_is_that_number(change):
    """DVC writes 3e-05 for -S rows.naive.lr=3e-5, which YAML reads as a string."""
    loaded = change(**{"rows/naive/lr": "3e-05", "rows/naive/steps": "20"})
    assert loaded.rows["naive"].lr == 3e-5 and loaded.rows["naive"].steps == 20


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("rows/naive/lr", "fast", r"rows\.naive\.lr: Input should be a valid number.*'fast'"),
        ("rows/naive/lr", True, r"rows\.naive\.lr: should be a number"),
        ("rows/naive/lr", float("nan"), r"rows\.naive\.lr"),
        ("rows/naive/steps", 0, r"rows\.naive\.steps"),
        ("rows/naive/steps", 1.5, r"rows\.naive\.steps"),
        ("rows/naive/rate", 1, r"rows\.naive\.rate: unknown parameter"),
        ("rows/naive/lr", None, r"rows\.naive\.lr: missing parameter"),
        ("rows/siss-0.5", {"method": "siss", "lr": 1, "steps": 1}, r"rows: the name 'siss-0\.5' may only use"),
        ("rows/base", {"method": "siss", "lr": 1, "steps": 1}, r"rows: 'base' is the name of a reference row"),
        ("base_models/tshirt/data/size", None, r"base_models\.tshirt\.data\.size: missing parameter"),
        ("base_models/tshirt/model", None, r"tshirt: needs either `source`, or `model` and `pretrain`"),
        ("base_models/tshirt/kind", "diffusion", r"base_models\.tshirt: kind must be unconditional, class or text"),
        ("base_models/emoji/denoiser/precision", "bf16", r"base_models\.emoji\.denoiser: precision is not used"),
        ("base_models/tshirt-without-repeated/without", "boots", r"without: 'boots' is unknown"),
        ("base_models/mnist-class-without-0/of", "mnist", r"mnist-class-without-0\.of: 'mnist' is not defined"),
        ("bases", ["emoji", "mnist-class"], r"images\.tasks: 'tshirt' needs 'tshirt' in the list `bases`"),
        ("bases", ["tshirts"], r"bases: 'tshirts' is not defined under `base_models`"),
        ("bases", ["tshirt-val"], r"bases: 'tshirt-val' continues 'tshirt-without-repeated', which `make tune` alone"),
        ("sedes", [1], r"sedes: unknown parameter"),
        ("seeds", [], "seeds: the list is empty"),
        ("seeds", [1, 2, 1], "seeds: repeated: 1"),
        ("seeds", [-1], r"seeds\.0"),
        ("images/rows", [], r"images\.rows: the list is empty"),
        ("images/subjects", [], r"images\.subjects: the list is empty"),
        ("images/subjects", ["sequential"], r"images\.subjects\.0: .*'sequential'"),
        ("images/rows", ["naive", "naive"], r"images\.rows: repeated: naive"),
        ("images/tasks", ["tshirts"], r"images\.tasks: 'tshirts' is not defined under `image_tasks`"),
        ("images/rows", ["sis-05"], r"images\.rows: 'sis-05' is not defined under `rows`"),
        ("image_tasks/tshirt/base", "emoji", r"tshirt\.base: 'emoji' is not defined .* for the kind images"),
        ("image_tasks/tshirt/overrides", {"nobody": {"lr": 1}}, r"image_tasks\.tshirt\.overrides: 'nobody'"),
        ("runtime/device", "gpu7", r"runtime\.device: .*'gpu7'"),
        ("threads/cells", 0, r"threads\.cells"),
    ],
)
def test_bad_parameters_are_named(change, path, value, words):
    with pytest.raises(UserError, match=words) as caught:
        change(**{path: value})
    assert "\n" not in str(caught.value)


def test_no_task_at_all_is_named(change):
    with pytest.raises(UserError, match=r"images\.tasks: the list is empty, and so are concept\.tasks"):
        change(**{f"{kind}/tasks": [] for kind in KINDS})


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(UserError, match="not found: run from the repository's root"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(UserError, match="is not valid YAML"):
        params.load(tmp_path / "params.yaml")


def test_a_task_overrides_a_row(change):
    loaded = change(**{"image_tasks/tshirt/overrides": {"siss-05": {"lr": 5e-6, "options": {"norm": 500}}}})
    row = loaded.row("tshirt", "siss-05")
    assert row.lr == 5e-6 and row.steps == loaded.rows["siss-05"].steps and row.options == {"lam": 0.5, "norm": 500}
    assert loaded.row("tshirt", "naive") == loaded.rows["naive"]


# Learning rates


def read_searches(kind: str) -> dict[tuple[str, str], list[dict]]:
    """(validation task, row) -> its trials, with numbers in the place of text."""
    searches = defaultdict(list)
    for line in read_csv(ROOT / f"results/tuning-{kind}.csv"):
        numbers = {metric: float(line[metric]) for metric in tune.RULES[kind].metrics}
        searches[line["task"], line["row"]].append(line | numbers)
    return searches


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_chosen_is_chosen_by_the_rule(shipped, kind):
    searches = read_searches(kind)
    for (task, row), trials in searches.items():
        if row == "base":
            continue
        (base,) = searches.get((task, "base"), [{}])
        winner = tune.RULES[kind].choose(trials, base)
        assert sorted(float(trial["lr"]) for trial in trials) == sorted(tune.grid(shipped, kind, task)), (task, row)
        assert [trial["chosen"] == "1" for trial in trials] == [trial is winner for trial in trials], (task, row)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_rates_are_the_winners_of_the_search(shipped, kind):
    assert shipped.concept.lr_multiplier == 1
    searches = read_searches(kind)
    enabled = shipped.enabled(kind)
    for task in enabled.tasks:
        for row in enabled.rows:
            if methods.find(shipped.rows[row].method).closed_form:
                continue
            trials = searches[f"{task}-val", tune.TWINS.get(row, row)]
            assert trials, f"{row} was never searched on {task}-val"
            (winner,) = [trial for trial in trials if trial["chosen"] == "1"]
            assert shipped.row(task, row).lr == float(winner["lr"]), (task, row)


def test_validation_tasks_are_never_reported(shipped):
    for kind in KINDS:
        assert not [task for task in shipped.enabled(kind).tasks if task.endswith("-val")]
    assert not [base for base in shipped.bases if base.endswith("-val")]
    assert Path(ROOT / shipped.image_tasks["tshirt-val"].forget).exists()
