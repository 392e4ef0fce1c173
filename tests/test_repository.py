"""What the repository promises around its code: words that lead somewhere, the lock and the set-up commands."""

import configparser
import io
import os
import re
import shutil
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from project import ROOT, repository_files

# What nobody who has only this repository can look up.
CITATION = re.compile(
    r"\bdigests?\b(?:,|,? section|, \w+)? ?\d|\bof the digest\b|\b[Tt]he digest's\b|\bdigest, (?:section|[A-Z])"
)
DOCUMENT = re.compile(r"[\w-]+\.md\b")
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


# Words


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text): lines of a document, or comments and strings of a Python file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), token.start[0])


def test_citations_lead_somewhere():
    """Nothing is cited that is not in the repository: no digest by its section, no document that does not exist."""
    files = repository_files()
    documents = {path.name for path in files if path.suffix == ".md"}
    texts = [path for path in files if path.suffix == ".md" and path.name != "CHANGELOG.md"]
    lost = []
    for path in texts + [path for path in files if path.suffix == ".py" and path.is_relative_to(ROOT / "src")]:
        for number, text in prose(path):
            cited = CITATION.findall(text) + [word for word in DOCUMENT.findall(text) if word not in documents]
            lost += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in cited]
    assert not lost, "\n".join(lost)


def test_no_machine_or_registry_is_named():
    named = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if any(host in line for host in HOSTS) or MACHINE_PATH.search(line):
                named.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not named, "\n".join(named)


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


def test_make_targets_parse():
    targets = re.findall(r"^([a-z][a-z-]*):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "repro", "test", "test-full", "check", "lint", "coverage", "tune", "readme", "clean"} <= set(
        targets
    )
    for target in targets:
        run = make(ROOT, "-n", target, "ARGS=TASK ROW")
        assert (run.returncode, run.stderr) == (0, ""), target
        scripts = re.findall(r"python ((?:tools|benchmarks)/\S+)", run.stdout)
        assert all((ROOT / path).is_file() for path in scripts), target
        assert "tools/tune.py TASK ROW" in run.stdout or target != "tune"


def test_lint_comes_before_the_tests_everywhere():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert steps[-2:] == ["make lint", "make test"]
    lint = make(ROOT, "-n", "lint").stdout
    assert re.findall(r"(ruff format --check|ruff check|mypy src stages)", lint) == [
        "ruff format --check",
        "ruff check",
        "mypy src stages",
    ]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks} == {"ruff", "mypy"} <= lock().keys()


def test_templates_are_forms():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[bm]*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"]
        assert any(field.get("validations", {}).get("required") for field in form["body"])


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


@pytest.mark.parametrize(("fails", "ran"), [("lint", ["lint"]), ("test", ["lint", "test"]), ("", ["lint", "test"])])
def test_ci_stops_at_the_first_failure(tmp_path, fails, ran):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    script(tmp_path / "bin/make", f'echo "$PWD: $*"; test "$*" != "{fails}" || exit 3')
    environment = os.environ | {"PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(["bash", tmp_path / ".ci/run"], env=environment, capture_output=True, text=True)
    assert run.returncode == (3 if fails else 0)
    assert run.stdout.splitlines() == [f"{tmp_path}: {target}" for target in ran]
