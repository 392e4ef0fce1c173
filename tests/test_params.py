"""Parameters: typed, complete, and wrong ones named in one line."""

from collections import defaultdict
from pathlib import Path

import pytest
import tune
import yaml
from project import ROOT, set_key

from palinode import methods, params
from palinode.core.errors import UserError
from palinode.core.io import read_csv, read_json
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


def read_searches(kind: str) -> dict[str, list[dict]]:
    """Validation task -> its trials, with numbers in the place of text."""
    searches = defaultdict(list)
    for line in read_csv(ROOT / f"results/tuning-{kind}.csv"):
        numbers = {metric: float(line[metric]) for metric in ("lr", *tune.RULES[kind].metrics) if line[metric]}
        searches[line["task"]].append(line | numbers)
    return searches


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_chosen_is_chosen_by_the_rule(shipped, kind):
    for task, lines in read_searches(kind).items():
        (base,) = [line for line in lines if line["row"] == "base"] or [{}]
        trials = [line for line in lines if line["row"] != "base"]
        for row in {trial["row"] for trial in trials}:
            tried = sorted(trial["lr"] for trial in trials if trial["row"] == row)
            assert tried == sorted(tune.grid(shipped, kind, task)), (task, row)
        marked = tune.mark_winners(trials, base, tune.RULES[kind])
        assert [int(trial["chosen"]) for trial in trials] == [trial["chosen"] for trial in marked], task


@pytest.mark.parametrize("kind", ["concept", "prompts"])
def test_learning_rates_are_the_winners_of_the_search(shipped, kind):
    for swept in (shipped.images, shipped.concept):
        assert swept.lr_multiplier == 1 and "lr_multiplier" in swept.model_fields_set, "DVC sets keys that are there"
    searches = read_searches(kind)
    enabled = shipped.enabled(kind)
    for task in enabled.tasks:
        for row in enabled.rows:
            if methods.find(shipped.rows[row].method).closed_form:
                continue
            searched = tune.TWINS.get(row, row)
            chosen = [
                line["lr"] for line in searches[f"{task}-val"] if (line["row"], line["chosen"]) == (searched, "1")
            ]
            assert chosen == [shipped.row(task, row).lr], (task, row)


def test_all_rows_that_forget_images_have_one_learning_rate(shipped):
    """The paper's protocol: nothing is tuned by row, and steps keep its ratio of 3 to 1."""
    searches = read_searches("images")
    for task in shipped.images.tasks:
        lines = searches[f"{task}-val"]
        assert {line["row"] for line in lines} == {"base", *tune.PROTOCOL_ROWS}
        (chosen,) = {line["lr"] for line in lines if line["chosen"] == "1"}
        for row in (name for name in shipped.rows if name.startswith(("siss", "naive", "neggrad"))):
            assert shipped.row(task, row).lr == chosen, row
        assert {shipped.row(task, row).lr for row in shipped.images.rows} == {chosen}
    steps = {row: shipped.rows[row].steps for row in shipped.images.rows}
    assert {steps[row] for row in tune.PROTOCOL_ROWS} == {90}
    assert {steps[row] for row in ("neggrad", "siss-1", "erasediff-siss")} == {30}


def test_constant_norms_are_those_that_were_measured(shipped):
    """A tenth of naive deletion's gradient norm over its first steps, on the validation task."""
    measured = read_json(ROOT / "results/constant-norms.json")
    for kind in ("images", "prompts"):
        for task in shipped.enabled(kind).tasks:
            record = measured[f"{task}-val"]
            assert record["norm"] == float(f"{0.1 * record['mean_norm']:.2g}")
            for row in ("siss-0", "siss-05", "siss-1", "siss-no-is", "siss-05-refresh10"):
                assert shipped.row(task, row).options["norm"] == record["norm"], (task, row)


def test_validation_tasks_are_never_reported(shipped):
    for kind in KINDS:
        assert not [task for task in shipped.enabled(kind).tasks if task.endswith("-val")]
    assert not [base for base in shipped.bases if base.endswith("-val")]
    assert Path(ROOT / shipped.image_tasks["tshirt-val"].forget).exists()
