"""What code a stage runs: its script and the project modules that imports, each with a hash of its meaning.

The hash of a module covers the syntax tree without docstrings, citations and positions, walked field by field with
empty fields skipped, so that comments, layout and the Python version leave it alone. Two packages are left out:
`params`, whose effect on a stage is the settings in its plan file, and `pipeline`, which says how a stage is started.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = "palinode"
LEFT_OUT = (f"{PACKAGE}.params", f"{PACKAGE}.pipeline")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TEMPLATES = {".html", ".css"}  # read by the modules beside them


def hash_code(entry: Path, source: Path, extra: tuple[str, ...] = ()) -> dict[str, str]:
    """{file: hash} of `entry`, the modules named in `extra` and all project modules they import, lazily or not.

    entry: a script; source: the folder that holds the package; extra: dotted module names.
    """
    waiting = [entry, *(file for name in extra for file in _files(name, source))]
    hashes: dict[str, str] = {}
    while waiting:
        file = waiting.pop()
        key = file.relative_to(source).as_posix() if file.is_relative_to(source) else file.name
        if key in hashes:
            continue
        meaning, names = _read(file.read_text(encoding="utf-8"), str(file))
        hashes[key] = meaning
        waiting += [other for name in names for other in _files(name, source)]
    for folder in {(source / key).parent for key in hashes if key.startswith(PACKAGE)}:
        for file in folder.iterdir():
            if file.suffix in TEMPLATES:
                hashes[file.relative_to(source).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return dict(sorted(hashes.items()))


@cache
def _read(text: str, file: str) -> tuple[str, list[str]]:
    """(hash of a module's meaning, names of the project modules it imports); stages share most of their modules."""
    tree = ast.parse(text, filename=file)
    return hashlib.sha256(_meaning(tree).encode()).hexdigest()[:16], sorted(_imports(tree))


def _imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] == PACKAGE}
    return {name for name in ours if not any(name == part or name.startswith(f"{part}.") for part in LEFT_OUT)}


def _files(name: str, source: Path) -> list[Path]:
    """The files a dotted name runs: the module and every package above it."""
    files = []
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        stem = source.joinpath(*parts[:end])
        files += [path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()]
    return files


def _is_citation(node: ast.AST) -> bool:
    """`source = Source(...)` of a method: words about it, which no stage computes with."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "Source"
    )


def _meaning(node: object) -> str:
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            counted = _statements(node) if name == "body" and isinstance(node, DOCUMENTED) else value
            if counted is not None and counted != [] and name != "kind":
                fields.append(f"{name}={_meaning(counted)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(_meaning(item) for item in node)}]"
    return repr(node)


def _statements(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """What a body does, without its docstring and citations."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return [statement for statement in body if not _is_citation(statement)]
