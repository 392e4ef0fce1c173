"""What an edit reruns: the plan files of the shipped parameters that change with it, and no others."""

import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from project import ROOT, Project, set_key

from palinode import params
from palinode.pipeline import fingerprint, planning
from palinode.pipeline.planning import Plan

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")
TRAININGS = ("pretrain/*", "unlearn-*/*", "importance-*/*")
# The module that is edited -> patterns of the plan files that change. An edit is one more statement, which nothing
# calls: what counts is who imports the module.
EDITS = {
    # The grey between two pictures: whoever writes a sheet of pictures. Clusters are shown where prompts are prepared.
    "src/palinode/core/contact_sheet.py": [
        "evaluate-*/*",
        "gate/mnist-class*",
        "gate/emoji",
        "mitigate/emoji",
        "prepare-prompts/*",
    ],
    # How an interval is made: all that measures, and the report.
    "src/palinode/core/estimate.py": [
        "detect/emoji",
        "evaluate-*/*",
        "gate/*",
        "mitigate/emoji",
        "prepare-prompts/*",
        "report",
        "second-judge/emoji",
        "second-judge/mnist-class*",
        "sample-prompts/*",  # it mitigates, and mitigation is measured in the same module
    ],
    # A constant of a metric. What counts as quality of prompts is fixed where they are prepared.
    "src/palinode/metrics/integrity.py": ["evaluate-*/*", "gate/emoji", "prepare-prompts/*"],
    "src/palinode/metrics/registry.py": ["report"],
    # One method, and what three of them share.
    "src/palinode/methods/siss.py": ["unlearn-images/tshirt/siss-[01]*", "unlearn-prompts/*/siss-05"],
    "src/palinode/methods/_superfactor.py": ["unlearn-images/tshirt/siss-*", "unlearn-prompts/*/siss-*"],
    # Whoever draws a picture; conditional bases show what they draw while they train, and so do models that forget
    # prompts; batches of concepts can follow a trajectory.
    "src/palinode/sampling/samplers.py": [
        "detect/emoji",
        "evaluate-images/*",
        "evaluate-prompts/*",
        "gate/*",
        "importance-concept/*",
        "mitigate/emoji",
        "prepare-concept/*",
        "prepare-prompts/*",
        "pretrain/emoji",
        "pretrain/mnist-class*",
        "sample-*/*",
        "unlearn-concept/*",
        "unlearn-prompts/*",
    ],
    # All trainings; the judge of scenes trains in the module that defines it.
    "src/palinode/training/loop.py": [
        "evaluate-concept/*",
        "evaluate-prompts/*",
        "gate/emoji",
        "judge/emoji",
        "mitigate/emoji",
        "prepare-prompts/*",
        "pretrain/*",
        "sample-prompts/*",
        "second-judge/emoji",
        "unlearn-*/*",
    ],
    "src/palinode/classifiers/scene_judge.py": [
        "evaluate-concept/*",
        "evaluate-prompts/*",
        "gate/emoji",
        "judge/emoji",
        "mitigate/emoji",
        "prepare-prompts/*",
        "sample-prompts/*",
        "second-judge/emoji",
    ],
    "src/palinode/data/prompt_sets.py": ["evaluate-concept/*", "prepare-concept/*", "sample-concept/*"],
    "src/palinode/bases/text_to_image/pretrain.py": ["pretrain/emoji"],
    "src/palinode/tasks/concept/evaluate.py": ["evaluate-concept/*"],
    "src/palinode/memorization/detectors/sharpness.py": ["detect/emoji"],
    "src/palinode/report/page.html": ["report"],
    "src/palinode/report/sections/prompt_results.py": ["report"],
    "stages/sample.py": ["sample-*/*"],
    # What a parameter means shows in the settings of a plan file, and how a stage starts changes no result.
    "src/palinode/params/detection.py": [],
    "src/palinode/pipeline/stage.py": [],
    "src/palinode/pipeline/planning.py": [],
    "tools/readme.py": [],
}


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return list(planning.list_plans(params.load(ROOT / "params.yaml")))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A copy of the code, to be edited and mended."""
    folder = tmp_path_factory.mktemp("edits")
    for name in ("src", "stages", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
    return folder


def hash_plans(plans: list[Plan], root: Path) -> dict[str, dict[str, str]]:
    """Path of a plan file -> the code that it lists."""
    source = root / "src"
    return {
        plan.path: fingerprint.hash_code(root / "stages" / f"{plan.script}.py", source, plan.modules)
        for plan in plans
        if plan.script is not None
    }


@pytest.fixture(scope="module")
def before(plans, root) -> dict[str, dict[str, str]]:
    return hash_plans(plans, root)


@pytest.fixture
def change(plans, root, before):
    """Edit a file of the copy: the plan files that change with it. The file is mended afterwards."""
    originals: dict[Path, str] = {}

    def edit(name: str, rewrite: Callable[[str], str]) -> set[str]:
        path = root / name
        text = path.read_text(encoding="utf-8")
        originals[path] = text
        rewritten = rewrite(text)
        assert rewritten != text
        path.write_text(rewritten, encoding="utf-8")
        after = hash_plans(plans, root)
        return {plan for plan in before if after[plan] != before[plan]}

    yield edit
    for path, text in originals.items():
        path.write_text(text, encoding="utf-8")


def add_statement(text: str) -> str:
    return f"{text}\nEDITED = True\n"


def select(patterns: list[str], paths: dict[str, dict[str, str]]) -> set[str]:
    """The plan files that patterns name, each of which must name one at least."""
    chosen = {pattern: {path for path in paths if fnmatch(path, pattern)} for pattern in patterns}
    empty = [pattern for pattern, matches in chosen.items() if not matches]
    assert not empty, f"no plan file is like {empty}"
    return set().union(*chosen.values())


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_reruns_what_uses_it_alone(change, before, name):
    changed = change(name, add_statement)
    expected = select(EDITS[name], before)
    assert changed == expected, f"too many: {sorted(changed - expected)}; missing: {sorted(expected - changed)}"


@pytest.mark.parametrize(
    "name",
    ["src/palinode/training/loop.py", "src/palinode/core/io.py", "src/palinode/methods/siss.py", "stages/unlearn.py"],
)
def test_comments_and_docstrings_rerun_nothing(change, name):
    def comment(text: str) -> str:
        assert text.startswith('"""')
        return '"""Said otherwise: ' + text.removeprefix('"""') + "\n# A comment.\n"

    assert change(name, comment) == set()


def test_no_training_depends_on_what_is_measured(before):
    """An edit in a metric, a judge, an attack or the report never trains anything again."""
    measured = ("metrics/", "classifiers/", "attacks/", "report/", "core/contact_sheet.py", "core/estimate.py")
    for path, code in before.items():
        if any(fnmatch(path, pattern) for pattern in TRAININGS):
            wrong = [name for name in code if name.startswith(tuple(f"palinode/{part}" for part in measured))]
            assert not wrong, f"{path} runs {wrong}"


def test_a_setting_reruns_what_reads_it_alone():
    """A changed default is a changed setting: both show in the plan files that hold it."""

    def dump(made: dict) -> dict[str, dict]:
        loaded = params.Params.model_validate(made)
        return {
            plan.path: {"threads": plan.threads} | plan.settings.model_dump(mode="json")
            for plan in planning.list_plans(loaded)
        }

    shipped = params.load(ROOT / "params.yaml").model_dump(mode="json", exclude_unset=True)
    before = dump(shipped)

    def list_changed(path: str, value: object) -> set[str]:
        made = params.load(ROOT / "params.yaml").model_dump(mode="json", exclude_unset=True)
        set_key(made, path, value)
        after = dump(made)
        assert after.keys() == before.keys()
        return {plan for plan in before if after[plan] != before[plan]}

    assert list_changed("detection/batch", 32) == {"detect/emoji", "mitigate/emoji"}
    assert list_changed("detection/detectors", ["noise_norm"]) == {"detect/emoji"}
    assert list_changed("runtime/processes", 3) == {"runtime"}
    of_bases = {"prepare-base", "judge", "pretrain", "gate", "second-judge", "detect", "mitigate"}
    assert {path.split("/")[0] for path in list_changed("threads/bases", 3)} == of_bases
    of_no_cell = of_bases | {"runtime", "bind"}
    assert list_changed("threads/cells", 3) == {path for path in before if path.split("/")[0] not in of_no_cell}
    assert list_changed("rows/siss-1/lr", 1e-4) == {"unlearn-images/tshirt/siss-1", "report"}
    assert list_changed("base_models/mnist-class/gate", {"each": 50}) == {"gate/mnist-class"}
    assert list_changed("image_tasks/tshirt/sample", {"count": 512}) == {"sample-images/tshirt"}
    assert list_changed("image_tasks/tshirt/evaluate", {"bootstrap": 100}) == {"evaluate-images/tshirt"}
    cells = {f"unlearn-images/tshirt/{row}" for row in shipped["images"]["rows"]}
    assert list_changed("images/lr_multiplier", 2.0) == cells | {"report"}
    oracle = {"pretrain/mnist-class", "pretrain/mnist-class-without-0"}
    pretraining = shipped["base_models"]["mnist-class"]["pretrain"] | {"steps": 10}
    assert list_changed("base_models/mnist-class/pretrain", pretraining) == oracle


@pytest.mark.slow
def test_a_default_reruns_what_reads_it_alone(tmp_path):
    """Through the stage itself, in processes of their own that run the edited copy."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=IGNORED)
    (tmp_path / "data").symlink_to(ROOT / "data")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    project = Project(tmp_path)
    project.stage("plan")
    before = project.digest("out/plan")
    project.edit("src/palinode/params/detection.py", "batch: Positive = 64", "batch: Positive = 32")
    project.stage("plan")
    after = project.digest("out/plan")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"out/plan/detect/emoji.json", "out/plan/mitigate/emoji.json"}
