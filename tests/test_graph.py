"""Which stage a command line is, and what dvc.yaml declares for it."""

from pathlib import Path

import pytest
from project import ROOT

from palinode.core.errors import UserError
from palinode.core.io import write_json
from palinode.core.work import Work
from palinode.params.fields import Positive, Settings
from palinode.pipeline import graph

GRAPH = """
stages:
  plan:
    cmd: PYTHONPATH=src python stages/plan.py
    deps:
      - params.yaml
    outs:
      - out/plan
  sample-reference:
    cmd: PYTHONPATH=src python stages/sample.py images ${item.task} reference ${item.row}
    deps:
      - out/bases/${item.task}/base
    outs:
      - out/references/${item.task}/${item.row}
  sample:
    cmd: PYTHONPATH=src python stages/sample.py images ${item.task} ${item.row} ${item.seed}
    deps:
      - out/plan/sample/${item.task}.json
      - out/cells/${item.task}/${item.row}/${item.seed}/model
    outs:
      - out/cells/${item.task}/${item.row}/${item.seed}/samples:
          cache: false
    metrics:
      - out/cells/${item.task}/${item.row}/${item.seed}/metrics.json:
          cache: false
    plots:
      - out/cells/${item.task}/${item.row}/${item.seed}/plot.csv
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A repository with a graph of three groups."""
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_command_gets_the_paths_that_are_declared_for_it(small):
    work = graph.find("sample", ["images", "tshirt", "siss-05", "0"])
    assert work.name == "sample@tshirt-siss-05-0"
    assert work.inputs == [Path("out/plan/sample/tshirt.json"), Path("out/cells/tshirt/siss-05/0/model")]
    cell = Path("out/cells/tshirt/siss-05/0")
    assert work.outputs == [cell / "samples", cell / "metrics.json", cell / "plot.csv"]


def test_a_stage_without_a_matrix_is_its_group(small):
    assert graph.find("plan", []) == Work("plan", [Path("params.yaml")], [Path("out/plan")])


def test_the_command_with_more_words_of_its_own_wins(small):
    """`reference` could be the name of a row, and a row's name the number of a seed."""
    work = graph.find("sample", ["images", "tshirt", "reference", "base"])
    assert work.name == "sample-reference@tshirt-base"
    assert work.outputs == [Path("out/references/tshirt/base")]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("sample", []),
        ("sample", ["images", "tshirt"]),
        ("sample", ["concept", "tshirt", "siss-05", "0"]),
        ("sample", ["images", "tshirt", "siss-05", "0", "more"]),
        ("plan", ["again"]),
        ("paint", []),
    ],
)
def test_an_unknown_command_is_one_line(small, script, arguments):
    with pytest.raises(UserError) as raised:
        graph.find(script, arguments)
    assert str(raised.value) == " ".join(["dvc.yaml has no stage for", f"stages/{script}.py", *arguments])


def test_outside_the_repository_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dvc\.yaml not found: run from the repository's root"):
        graph.find("plan", [])


def test_a_graph_that_changes_is_read_again(small):
    graph.find("plan", [])
    Path("dvc.yaml").write_text(GRAPH.replace("params.yaml", "settings.yaml"))
    assert graph.find("plan", []).inputs == [Path("settings.yaml")]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("prepare base tshirt", "prepare-base@tshirt"),
        ("prepare images tshirt", "prepare-images@tshirt"),
        ("prepare concept emoji-object 0", "prepare-concept@emoji-object-0"),
        ("sample images tshirt reference base", "sample-images-reference@tshirt-base"),
        ("sample images tshirt 0 siss-05 0", "sample-images@tshirt-0-siss-05-0"),
        ("sample concept emoji-object 0 reference other-seed", "sample-concept-reference@emoji-object-0-other-seed"),
        ("evaluate images tshirt 0 reference base", "evaluate-images-reference@tshirt-0-base"),
        ("unlearn prompts emoji-memorized sequential esd-x 0", "unlearn-prompts@emoji-memorized-sequential-esd-x-0"),
        ("attack concept emoji-style 0 reference base relearn", "attack-concept-reference@emoji-style-0-base-relearn"),
    ],
)
def test_the_repositorys_own_commands_are_told_apart(repository, command, name):
    script, *arguments = command.split()
    assert graph.find(script, arguments).name == name


def test_a_stage_finds_its_files_by_how_their_paths_end(repository, tmp_path):
    work = graph.find("unlearn", ["images", "tshirt", "0", "siss-05", "0"])
    assert work.input("base") == Path("out/bases/tshirt/base")
    assert work.input("metadata.json") == Path("out/tasks/tshirt/metadata.json")
    assert work.output("model") == Path("out/cells/tshirt/0/siss-05/0/model")
    assert work.output("0/training") == Path("out/cells/tshirt/0/siss-05/0/training")
    with pytest.raises(ValueError, match="unpack"):
        work.input("judge")


class Drawing(Settings):
    """What a plan file may hold."""

    steps: Positive


def test_settings_are_those_of_the_plan_file_among_the_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Path("out/plan/bind.json")
    work = Work("bind", [Path("models"), plan], [Path("out/bases")])
    with pytest.raises(UserError, match=r"missing out/plan/bind\.json: run the stages through `dvc repro`"):
        work.settings(Drawing)
    write_json(plan, {"settings": {"steps": 5}})
    assert work.settings(Drawing) == Drawing(steps=5)
    write_json(plan, {"settings": {"steps": 5, "judge": "tshirt"}})
    with pytest.raises(UserError, match=r"not of this code \(judge: unknown parameter\): run `dvc repro plan`"):
        work.settings(Drawing)
