"""What a step's code is, as one digest: its script and every module of this library that it imports.

Snakemake sees neither a changed module nor a changed script whose modification time is old, and reruns for a touched
one. This digest goes into each rule's params instead. It covers the syntax trees without docstrings (comments are not
in them), so only a change of meaning counts. A module names the other files that it reads in a literal tuple
`RESOURCES`, as paths or folders relative to itself; their content counts as it is.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaketune.files import write_text

LIBRARY = Path(__file__).resolve().parents[1]
ROOT = LIBRARY.parent
ENGINE_PARTS = {
    "load_model": "language_model",
    "load_reference_merge": "reference_merge",
    "load_gguf": "gguf_model",
    "get_trainer": "train",
    "get_exporter": "export",
    "get_quantizer": "quantize",
    "get_capabilities": "capabilities",
}
"""Functions of `snaketune.engines` that import a module of an engine by name, and which module that is."""
MEMORY = LIBRARY / "__pycache__" / f"digests.{sys.implementation.cache_tag}.json"


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
def _facts(path: Path) -> dict[str, Any]:
    """What a module's text says: a digest of its meaning, the names that it imports, the files that it reads."""
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    known = _remembered()
    if key not in known:
        tree = _tree(content, path)
        known[key] = {
            "digest": hashlib.sha256(ast.dump(tree).encode()).hexdigest(),
            "imports": list(dict.fromkeys(_imported_names(tree))),
            "resources": _resources(tree),
        }
        _remember(known)
    return known[key]


@functools.cache
def _remembered() -> dict[str, dict[str, Any]]:
    """Facts by the content of a file, kept beside Python's own bytecode: parsing all modules takes half a second."""
    try:
        return json.loads(MEMORY.read_bytes())
    except (OSError, ValueError):
        return {}


def _remember(known: dict[str, dict[str, Any]]) -> None:
    with contextlib.suppress(OSError):  # a read-only checkout is only slower
        write_text(MEMORY, json.dumps(known, sort_keys=True))


def _tree(content: bytes, path: Path) -> ast.Module:
    tree = ast.parse(content, str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:]
    return tree


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


@functools.cache
def _own_digest(path: Path) -> str:
    facts = _facts(path)
    resources = [_content_digest(path.parent / name) for name in facts["resources"]]
    return hashlib.sha256("".join([facts["digest"], *resources]).encode()).hexdigest()


@functools.cache
def _content_digest(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def _resources(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "RESOURCES" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


@functools.cache
def _imports(path: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(file for name in _facts(path)["imports"] for file in _files(name)))


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
    """The files that importing a dotted name runs: the packages above it and the module itself.

    Of a function of `snaketune.engines` these are also the modules of engines that calling it imports.
    """
    parts = name.split(".")
    if parts[0] != LIBRARY.name:
        return ()
    found: list[Path] = []
    if parts[1:-1] == ["engines"] and parts[-1] in ENGINE_PARTS:
        for part in sorted(LIBRARY.glob(f"engines/*/{ENGINE_PARTS[parts[-1]]}.py")):
            found += _files(".".join(part.relative_to(ROOT).with_suffix("").parts))
    for depth in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:depth])
        found += [file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()]
    return tuple(found)
