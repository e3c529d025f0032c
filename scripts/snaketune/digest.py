"""What a step's code is, as one digest: its script and every module of this library that it imports.

Snakemake sees neither a changed module nor a changed script whose modification time is old, and reruns for a touched
one. This digest goes into each rule's params instead. It covers the syntax trees without docstrings (comments are not
in them), so only a change of meaning counts. A module names the other files that it reads in a literal tuple
`RESOURCES`, as paths or folders relative to itself; their content counts as it is.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent
ROOT = LIBRARY.parent


def code_digest(script: str | Path, *others: str | Path) -> str:
    """Sixteen hex digits for a script, the library modules it reaches, and `others` (plain files)."""
    reached = sorted(_reached(Path(script).resolve()))
    parts = [(str(path.relative_to(ROOT)), _own_digest(path)) for path in reached]
    parts += [(Path(path).name, _content_digest(Path(path))) for path in others]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def modules_of(script: str | Path) -> list[str]:
    """The files that the digest of a script covers, relative to the scripts folder."""
    return sorted(str(path.relative_to(ROOT)) for path in _reached(Path(script).resolve()))


def _reached(start: Path) -> set[Path]:
    found, waiting = {start}, [start]
    while waiting:
        for path in _imports(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return found


@functools.cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:]
    return tree


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


@functools.cache
def _own_digest(path: Path) -> str:
    tree = _tree(path)
    digest = hashlib.sha256(ast.dump(tree).encode())
    for resource in _resources(path, tree):
        digest.update(_content_digest(resource).encode())
    return digest.hexdigest()


@functools.cache
def _content_digest(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def _resources(path: Path, tree: ast.Module) -> list[Path]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "RESOURCES" for t in node.targets):
            return [path.parent / name for name in ast.literal_eval(node.value)]
    return []


@functools.cache
def _imports(path: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(file for name in _imported_names(_tree(path)) for file in _files(name)))


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Dotted names that may be modules of the library; `from a import b` gives both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _files(name: str) -> tuple[Path, ...]:
    """The files that importing a dotted name runs: the packages above it and the module itself."""
    parts = name.split(".")
    if parts[0] != LIBRARY.name:
        return ()
    found = []
    for depth in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:depth])
        found += [file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()]
    return tuple(found)
