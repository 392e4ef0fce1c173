"""The house rules, held by the files themselves: sizes, imports, the lock and the set-up commands."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from project import repository_files

ROOT = Path(__file__).resolve().parents[1]
# The direction of the data flow; a module never reaches a later one, directly or through statistics.
LAYERS = ["params", "data", "models", "methods", "training", "sampling", "metrics", "memorization", "report"]
# Fragments, so that this file does not hold what it forbids.
HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "registry.npm" + "js",
    "deb.deb" + "ian.org",
    "ana" + "conda.org",
    "download.py" + "torch",
    "crates" + ".io",
    "index" + "-url",
    "find" + "-links",
]
MACHINE_PATH = re.compile(
    r"(?<![\w./:$}{~-])/(?:"
    + "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers", "op" + "t", "tm" + "p", "mn" + "t", "sr" + "v"])
    + r")/[\w.]"
)


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def too_long(paths: list[Path], limit: int) -> dict[str, int]:
    return {str(path.relative_to(ROOT)): lines(path) for path in paths if lines(path) > limit}


# Size and shape of the code


def test_files_are_short():
    methods = ROOT / "src/palinode/methods"
    assert not too_long(python_files("src") + python_files("stages"), 300)
    assert not too_long([path for path in methods.glob("*.py") if not path.name.startswith("_")], 80)
    assert not too_long(python_files("stages"), 60)


def test_the_package_stays_small():
    counted = [path for path in python_files("src") if not {"methods", "memorization"} & set(path.parts)]
    assert sum(map(lines, counted)) <= 7900


def test_every_python_file_compiles():
    for path in repository_files():
        if path.suffix == ".py":
            compile(path.read_text(), str(path), "exec")


def imports() -> dict[str, set[str]]:
    """Top-level module of the package -> the other top-level modules it imports anywhere, lazily or not."""
    package = ROOT / "src/palinode"
    graph = {path.stem: set() for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    for path in package.rglob("*.py"):
        inside = path.relative_to(package)
        owner = inside.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parents = ["palinode", *inside.parts[:-1]]
                base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
                module = ".".join(filter(None, [base, node.module]))
                names = [f"{module}.{alias.name}" for alias in node.names]
            tops = {name.split(".")[1] for name in names if name.startswith("palinode.")}
            graph[owner] |= (tops & graph.keys()) - {owner}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def test_imports_run_one_way():
    graph = imports()
    assert graph, "no modules found"
    backward = {
        name: later
        for i, name in enumerate(LAYERS)
        if name in graph
        if (later := reachable(graph, name) & set(LAYERS[i + 1 :]))
    }
    cycles = [name for name in graph if name in reachable(graph, name)]
    assert not backward and not cycles, f"backward: {backward}; in a cycle: {cycles}"


def test_no_machine_or_registry_is_named():
    found = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if any(host in line for host in HOSTS) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


# Set-up


def lock() -> dict[str, str]:
    """Canonical name -> version of every locked package."""
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9]+(?:-[a-z0-9]+)*)==([\w.]+)(?:; [^;#]+)?", line)
            assert match, f"not `name==version[; marker]`: {line}"
            Requirement(line)
            assert match[1] not in pins, f"{match[1]} is listed twice"
            pins[match[1]] = match[2]
    return pins


def test_lock_satisfies_the_project():
    pins = lock()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    dev = project["project"]["optional-dependencies"]["dev"]
    for text in project["project"]["dependencies"] + dev + project["build-system"]["requires"]:
        need = Requirement(text)
        assert pins.get(need.name.lower()) in need.specifier, f"{text}: locked {pins.get(need.name.lower())}"


def test_dvc_keeps_to_itself():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert config.sections() == ["core"], "no remote by default"
    assert dict(config["core"]) == {"analytics": "false", "autostage": "false", "check_update": "false"}


def test_citation_names_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    papers = [paper["identifiers"][0]["value"] for paper in citation["references"]]
    assert papers == ["arXiv:2503.01034", "arXiv:2401.05779", "arXiv:2405.15304", "arXiv:2411.02068"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run make there as a person would, without what an outer `make test` hands down."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=inherited | environment, capture_output=True, text=True)


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("target", ["help", "install", "repro", "test", "lint", "bench", "tune", "readme", "clean"])
def test_make_targets_parse(target):
    run = make(ROOT, "-n", target)
    assert (run.returncode, run.stderr) == (0, "")


def test_an_old_python_is_refused_in_one_line(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    script(tmp_path / "bin/python3", "exit 1")
    run = make(tmp_path, "test", PATH=f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    said = [line for line in run.stderr.splitlines() if not line.startswith("make")]
    assert run.returncode != 0 and len(said) == 1 and "Python 3.11 or newer" in said[0]
    assert not (tmp_path / ".venv").exists()


def test_only_a_newer_lock_installs_again(tmp_path):
    stamp = tmp_path / ".venv/installed"
    stamp.parent.mkdir()
    for age, name in ((20, "Makefile"), (20, "requirements.lock"), (20, "pyproject.toml"), (10, ".venv/installed")):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes() if age == 20 else b"")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert make(tmp_path, "-q", "install").returncode == 0
    os.utime(tmp_path / "requirements.lock", (1e9, 1e9))
    assert make(tmp_path, "-q", "install").returncode == 1


def test_ci_fails_when_the_tests_fail(tmp_path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    script(tmp_path / "bin/make", 'echo "$PWD: $*"; exit 3')
    environment = os.environ | {"PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(["bash", tmp_path / ".ci/run"], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (3, f"{tmp_path}: test\n")
