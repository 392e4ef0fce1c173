"""The house rules, held by the files themselves: sizes, imports, the lock, the set-up commands and the shipped data."""

import ast
import configparser
import gzip
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
# The direction of the data flow; a module never reaches a later one, directly or through helpers.
LAYERS = ["params", "data", "models", "methods", "training", "sampling", "metrics", "report"]
# Fragments, so that this file does not hold what it forbids.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js", "deb.deb" + "ian.org", "ana" + "conda.org",
         "download.py" + "torch", "crates" + ".io", "index" + "-url", "find" + "-links"]
MACHINE_PATH = re.compile(r"(?<![\w./:$}{~-])/(?:" + "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers",
                          "op" + "t", "tm" + "p", "mn" + "t", "sr" + "v"]) + r")/[\w.]")
SPLIT_SIZES = {"train": 600, "judge-train": 600, "reference": 200, "judge-test": 100}  # images a class


def repository_files() -> list[Path]:
    """Every file that is, or would be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in run.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


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
    assert sum(map(lines, counted)) <= 5500


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
    backward = {name: later for i, name in enumerate(LAYERS) if name in graph
                if (later := reachable(graph, name) & set(LAYERS[i + 1 :]))}
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


# Shipped data


def shipped() -> dict[str, str]:
    """File below data/ -> SHA-256 of its content, of all but the two that describe the rest."""
    listed = subprocess.run(["git", "ls-files", "-z", "data"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    names = {path.relative_to(DATA).as_posix(): path for path in paths}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(names.items())
            if path.name not in ("README.md", "build.py")}


def test_data_is_what_its_readme_says():
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)$", (DATA / "README.md").read_text(), re.MULTILINE)
    assert {name: digest for digest, name in listed} == shipped()
    for part, most in {"mnist": 4_000_000, "fashion": 10_000, "emoji": 2_000_000}.items():
        assert 0 < sum((DATA / name).stat().st_size for name in shipped() if name.startswith(part)) <= most


def test_splits_are_disjoint_and_balanced():
    splits = json.loads((DATA / "mnist/indices.json").read_text())
    used = [(split["part"], index) for split in splits.values() for index in split["indices"]]
    assert len(used) == len(set(used))
    for name, per_class in SPLIT_SIZES.items():
        images, labels = (np.load(DATA / f"mnist/{name}{end}.npy") for end in ("", "-labels"))
        assert images.shape == (10 * per_class, 16, 16, 1) and images.dtype == labels.dtype == np.uint8
        assert np.bincount(labels).tolist() == [per_class] * 10
        assert len(splits[name]["indices"]) == len(labels)
    for name in ("tshirt", "boot"):
        image = np.load(DATA / f"fashion/{name}.npy")
        assert image.shape == (1, 16, 16, 1) and image.dtype == np.uint8


@pytest.fixture
def build():
    """data/build.py as a module of its own, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location("build", DATA / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rebuild(build, monkeypatch, mnist: Path | str, fashion: Path | str, out: Path) -> None:
    arguments = ["build.py", "--mnist", str(mnist), "--fashion", str(fashion), "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    build.main()


@pytest.mark.skipif(not {"PALINODE_IDX_MNIST", "PALINODE_IDX_FASHION"} <= os.environ.keys(),
                    reason="PALINODE_IDX_MNIST and PALINODE_IDX_FASHION name no IDX folders")
def test_data_rebuilds_bit_for_bit(build, monkeypatch, tmp_path):
    rebuild(build, monkeypatch, os.environ["PALINODE_IDX_MNIST"], os.environ["PALINODE_IDX_FASHION"], tmp_path)
    for name in shipped():
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


def idx(array: np.ndarray) -> bytes:
    """IDX encoding of a uint8 array: two zero bytes, type 8, number of axes, big-endian lengths, content."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


@pytest.fixture
def raw(build, monkeypatch, tmp_path):
    """A folder of small IDX files, three images a digit, which `build` takes for the published ones."""
    values = np.arange(30 * 28 * 28).reshape(30, 28, 28)
    contents = {"train-images": idx((values * 7 % 256).astype(np.uint8)),
                "t10k-images": idx((values * 11 % 256).astype(np.uint8)),
                "train-labels": idx(np.arange(30, dtype=np.uint8) % 10),
                "t10k-labels": idx(np.arange(30, dtype=np.uint8) // 3)}
    folder = tmp_path / "raw"
    folder.mkdir()
    for part, content in contents.items():
        kind = "idx3" if part.endswith("images") else "idx1"
        (folder / f"{part}-{kind}-ubyte").write_bytes(content)
    digests = {part: hashlib.md5(content).hexdigest() for part, content in contents.items()}
    monkeypatch.setattr(build, "MD5", {"mnist": digests, "fashion": digests})
    splits = {"train": ("train", 0, 2), "reference": ("train", 2, 1), "test": ("t10k", 0, 1)}
    monkeypatch.setattr(build, "SPLITS", {16: splits})
    return folder


def test_resize_is_the_rounded_mean_of_blocks(build):
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, :2] = 1  # mean 1/2 rounds up
    image[0, 0, 2] = 1  # mean 1/4 rounds down
    image[0, 26:, 26:] = 255  # the sum passes 255: no overflow
    image[0, 2, 0], image[0, 3, 1] = 100, 5  # mean 26.25
    expected = np.zeros((16, 16), np.uint8)
    expected[1, 1], expected[14, 14], expected[2, 1] = 1, 255, 26
    np.testing.assert_array_equal(build.resize(image, 16)[0, :, :, 0], expected)
    np.testing.assert_array_equal(build.resize(image, 28)[..., 0], image)


def test_build_writes_what_its_indices_say(build, monkeypatch, raw, tmp_path):
    rebuild(build, monkeypatch, raw, raw, tmp_path / "plain")
    splits = json.loads((tmp_path / "plain/mnist/indices.json").read_text())
    for name, (part, _, count) in build.SPLITS[16].items():
        chosen = splits[name]["indices"]
        labels = np.load(tmp_path / f"plain/mnist/{name}-labels.npy")
        assert chosen == sorted(chosen) and np.bincount(labels).tolist() == [count] * 10
        source = build.read_idx(raw, "mnist", f"{part}-images")[chosen]
        np.testing.assert_array_equal(np.load(tmp_path / f"plain/mnist/{name}.npy"), build.resize(source, 16))
    assert sorted(splits["train"]["indices"] + splits["reference"]["indices"]) == list(range(30))
    # The other common spelling of the names, gzipped, gives the same bytes.
    for path in list(raw.iterdir()):
        name = path.name.replace("-idx", ".idx") + ".gz"
        (raw / name).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    rebuild(build, monkeypatch, raw, raw, tmp_path / "gzipped")
    for path in (tmp_path / "plain").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "gzipped" / path.relative_to(tmp_path / "plain")).read_bytes()


def test_build_refuses_other_files(build, raw):
    path = raw / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match="not the published file"):
        build.read_idx(raw, "mnist", "train-images")
    path.unlink()
    with pytest.raises(SystemExit, match="none of train-images"):
        build.read_idx(raw, "mnist", "train-images")
