"""The house rules of the code, held by the files themselves: sizes, shape, names, and who imports whom."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from project import ROOT, repository_files

PACKAGE = ROOT / "src/palinode"
CODE = ["src", "stages"]
LIMITS = {  # lines of a file
    "src": 300,
    "stages": 60,
    "tools": 300,
    "examples": 150,
    "tests": 550,
    "benchmarks": 350,
    "data": 300,
}
# The direction of the data flow; a package imports those before it, directly or late, and never a later one.
LAYERS = [
    "core",
    "params",
    "data",
    "models",
    "sampling",
    "methods",
    "training",
    "classifiers",
    "metrics",
    "memorization",
    "bases",
    "attacks",
    "tasks",
    "pipeline",
    "report",
    "run",
]
# The last two know what the files of an attack and of detection mean.
REPORT_READS = {"core", "params", "data", "metrics.registry", "report", "attacks.outcome", "memorization.roc"}
LONG_FUNCTIONS = {"training/loop.py:train"}  # the training loop is read from top to bottom
PUBLIC = {"os._exit"}  # documented, in spite of its name
KINDS_OF_MODEL = {"Diffuser", "ClassConditional", "TextToImage"}
PRONOUNS = {"found", "it", "some", "given", "one"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).as_posix()


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def nodes(path: Path, *kinds: type) -> Iterator[ast.AST]:
    """The nodes of these kinds in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, kinds))


def span(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


# Size and shape of the code


def test_files_are_short():
    sizes = {path: lines(path) for path in python_files(*LIMITS)}
    assert sizes
    long = [f"{name(path)}: {size}" for path, size in sizes.items() if size > LIMITS[path.relative_to(ROOT).parts[0]]]
    assert not long


def test_methods_are_short():
    """Beside what a method says of its source."""
    sizes = {}
    for path in (PACKAGE / "methods").glob("[a-z]*.py"):
        sources = [n for n in nodes(path, ast.Assign) if [ast.unparse(target) for target in n.targets] == ["source"]]
        sizes[path.stem] = lines(path) - sum(map(span, sources))
    assert sizes
    assert not {stem: size for stem, size in sizes.items() if size > 100}


def test_functions_are_short():
    long = {}
    for path in python_files(*CODE):
        for function in nodes(path, ast.FunctionDef):
            label = f"{name(path)}:{function.name}"
            if span(function) > 60:
                long[label] = span(function)
    assert not {label: size for label, size in long.items() if label not in LONG_FUNCTIONS}
    assert long.keys() >= LONG_FUNCTIONS, "an exception that is no longer needed"


def test_assignments_are_not_packed():
    """`a, b = x, y` hides two statements in one line: fewer than ten in a thousand lines."""
    packed = Counter()
    for path in python_files(*CODE):
        for node in nodes(path, ast.Assign):
            targets = [target for target in node.targets if isinstance(target, ast.Tuple)]
            packed[name(path)] += bool(targets) and isinstance(node.value, ast.Tuple)
    share = 1000 * packed.total() / sum(map(lines, python_files(*CODE)))
    assert share < 10, packed.most_common(10)


def test_module_names_are_unique():
    """Beside the verbs, which every kind of task and of base has in its own folder."""
    verbs = {path.stem for path in python_files("stages")}
    stems = Counter()
    for path in python_files("src"):
        parts = path.relative_to(PACKAGE).parts
        of_kind = len(parts) == 3 and parts[0] in ("tasks", "bases") and path.stem in verbs
        stems[path.stem] += path.stem != "__init__" and not of_kind
    assert not {stem for stem, count in stems.items() if count > 1}


def test_every_python_file_compiles():
    for path in repository_files():
        if path.suffix == ".py":
            compile(path.read_text(), str(path), "exec")


def test_variables_are_nouns():
    bad = []
    for path in python_files(*CODE):
        for node in nodes(path, ast.Name, ast.arg):
            stored = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node.ctx, ast.Store) else None
            if stored in PRONOUNS:
                bad.append(f"{name(path)}:{node.lineno}: {stored}")
    assert not bad


# Who may know what


def imported(path: Path, types: bool = True) -> Iterator[str]:
    """Every dotted name that a file of the package imports from it, late ones too, without `palinode`.

    types: also what is imported for the type checker alone.
    """
    parents = ["palinode", *path.relative_to(PACKAGE).parts[:-1]]
    blocks = [block for block in nodes(path, ast.If) if ast.unparse(block.test) == "TYPE_CHECKING"]
    for node in nodes(path, ast.Import, ast.ImportFrom):
        if not types and any(block.lineno <= node.lineno <= block.end_lineno for block in blocks):
            continue
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            start = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            names = [f"{module}.{inner}" for inner in names]
        yield from (inner.removeprefix("palinode.") for inner in names if inner.startswith("palinode."))


def test_imports_run_one_way():
    files = {path: path.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/**/*.py")}
    assert set(files.values()) == set(LAYERS)
    backward = []
    for path, package in files.items():
        later = LAYERS[LAYERS.index(package) + 1 :]
        backward += [f"{name(path)} imports {inner}" for inner in imported(path) if inner.split(".")[0] in later]
    assert not backward


def test_the_report_reads_files_not_code():
    """It shows what is on disk: no model, method or stage is needed to write it again."""
    strange = []
    for path in python_files("src/palinode/report"):
        for inner in imported(path):
            parts = inner.split(".")
            if not {parts[0], ".".join(parts[:2])} & REPORT_READS:
                strange.append(f"{name(path)} imports {inner}")
    assert not strange


def test_modules_of_a_package_have_no_circle():
    dotted = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    modules = {inner.removesuffix(".__init__"): path for path, inner in dotted.items()}
    graph = {}
    for module, path in modules.items():
        targets = {inner if inner in modules else inner.rpartition(".")[0] for inner in imported(path, types=False)}
        graph[module] = targets & modules.keys()
    cyclic = []
    for start in graph:
        reached = set()
        todo = [start]
        while todo:
            new = graph[todo.pop()] - reached
            reached |= new
            todo += new
        if start in reached:
            cyclic.append(start)
    assert not cyclic


def test_kinds_of_models_are_known_to_models_alone():
    asked = []
    for path in python_files(*CODE, "tools", "examples"):
        for call in nodes(path, ast.Call):
            if ast.unparse(call.func) in ("isinstance", "issubclass") and not path.is_relative_to(PACKAGE / "models"):
                kinds = set(re.findall(r"\w+", ast.unparse(call.args[1]))) & KINDS_OF_MODEL
                asked += [f"{name(path)}:{call.lineno}: {kind}" for kind in kinds]
    assert not asked


def test_other_packages_keep_their_secrets():
    """No private attribute of a package or module that is imported."""
    used = []
    for path in python_files(*CODE, "tools", "examples", "benchmarks"):
        modules = set()
        for node in nodes(path, ast.Import, ast.ImportFrom):
            foreign = isinstance(node, ast.Import) or (node.module or "").split(".")[0] != "palinode"
            if foreign and not getattr(node, "level", 0):
                modules |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
                used += [f"{name(path)}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
        for node in nodes(path, ast.Attribute):
            chain = ast.unparse(node).split(".")
            private = node.attr.startswith("_") and not node.attr.endswith("__")
            if chain[0] in modules and (private or node.attr == "import_utils") and ast.unparse(node) not in PUBLIC:
                used.append(f"{name(path)}:{node.lineno}: {ast.unparse(node)}")
    assert not used
