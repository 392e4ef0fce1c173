"""The metrics registry: every metric that occurs is in it once, and nothing else says how a metric is shown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from palinode.core.errors import UserError
from palinode.core.io import read_csv
from palinode.metrics import registry

ROOT = Path(__file__).resolve().parents[1]
REPORT = sorted((ROOT / "src/palinode/report").rglob("*.py"))


def list_published() -> list[tuple[str, str]]:
    """(kind, metric) of everything that a published run measured."""
    lines = [line for path in ROOT.glob("results/published/*/metrics.csv") for line in read_csv(path)]
    return list(dict.fromkeys((line["kind"], line["metric"]) for line in lines))


def list_mapped() -> list[str]:
    mapping = yaml.safe_load((ROOT / "reference/mapping.yaml").read_text())
    return [entry["ours"] for task in mapping["tasks"].values() for table in task.values() for entry in table.values()]


def test_every_metric_of_the_published_runs_is_registered():
    published = list_published()
    assert {kind for kind, _ in published} == registry.KINDS.keys()
    for _, name in published:
        assert registry.lookup(name).name == name


def test_every_metric_that_a_claim_uses_is_registered():
    for name in list_mapped():
        assert registry.lookup(name).name == name


def test_a_metric_stands_in_one_entry():
    names = [name for _, name in list_published()] + list_mapped()
    for name in names:
        bare = name.removeprefix(registry.SEQUENTIAL)
        matching = [entry.name for entry, pattern in registry._patterns() if pattern.fullmatch(bare)]
        assert len(matching) == 1, (name, matching)


def test_what_a_kind_shows_is_of_that_kind():
    for kind in registry.KINDS.values():
        patterns = [pattern for entry, pattern in registry._patterns() if entry in kind.entries]
        for name in (*kind.main, *(name for front in kind.fronts for name in front)):
            assert any(pattern.fullmatch(name.removeprefix(registry.SEQUENTIAL)) for pattern in patterns), name


@pytest.mark.parametrize(
    "name,label,unit,scale",
    [
        ("kid_judge", "KID (judge)", "", 1),
        ("ua_synonyms", "UA, synonyms", "%", 100),
        ("drift_near_lpips_alex", "Drift, near (LPIPS)", "distance", 1),
        ("target_prompt_tuning_200", "Prompt tuning, 200 steps", "%", 100),
        ("relearn_steps", "Relearning: half of the target back after", "steps", 1),
        ("sequential_memorized_original", "Sequential: Memorized, original prompt", "%", 100),
    ],
)
def test_placeholders_are_filled_in(name, label, unit, scale):
    entry = registry.lookup(name)
    assert (entry.name, entry.label, entry.shown_unit, entry.scale) == (name, label, unit, scale)


@pytest.mark.parametrize(
    "name", ["ua_t0", "kid_mine", "target_relearn_", "sequential_", "xkid_judge", "integrity_near"]
)
def test_a_name_that_is_not_registered_is_named(name):
    with pytest.raises(UserError, match=f"'{name}' is not registered"):
        registry.lookup(name)


def test_the_headline_is_the_main_table():
    for kind in registry.KINDS:
        assert tuple(entry.name for entry in registry.columns(kind)) == registry.headline(kind)


def test_nothing_else_in_the_report_holds_labels_units_or_digits():
    entries = {registry.lookup(name) for _, name in list_published()}
    words = {entry.label for entry in entries if " " in entry.label} | {"bits/dim", "nats", "cosine"}
    for path in REPORT:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], path
        assert not re.search(r"\bdigits=|\bunit=|\bdirection=", text), path


def test_it_is_light():
    code = "import sys; from palinode.metrics import registry; sys.exit(bool({'numpy', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "src"}).returncode == 0
