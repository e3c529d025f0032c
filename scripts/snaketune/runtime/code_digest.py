"""One digest of a step's code: its script and every module of this library that it imports.

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
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from snaketune.files import write_text
from snaketune.runtime.step import selected_engine

LIBRARY = Path(__file__).resolve().parents[1]
ROOT = LIBRARY.parent
ENGINE_PARTS = {
    "load_model": "language_model",
    "load_reference_merge": "reference_merge",
    "load_gguf": "gguf_model",
    "gguf_gpu_layers": "gguf_model",
    "get_trainer": "train",
    "get_exporter": "export",
    "get_quantizer": "export",
    "get_product_quantizer": "product",
    "load_served_tokenizer": "served_tokenizer",
    "get_capabilities": "capabilities",
}
"""Functions of `snaketune.engines` that import a module of an engine by name, and which module that is."""
TRAINERS = "engines/*/train.py"  # an engine that trains has this module; a run uses one such engine
_reached: dict[str, tuple[list[Path], tuple[Path, ...]]] = {}  # by digest: modules, and plain files
CACHE_FILE = LIBRARY / "__pycache__" / f"digests.{sys.implementation.cache_tag}.json"


def code_digest(script: str | Path, *others: str | Path) -> str:
    """Return sixteen hex digits for a script, the library modules it reaches, and `others` (plain files)."""
    reached = sorted(_import_closure(Path(script).resolve()))
    parts = [(str(path.relative_to(ROOT)), _own_digest(path)) for path in reached]
    parts += [(Path(path).name, _content_digest(Path(path))) for path in others]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    _reached[digest] = (reached, tuple(map(Path, others)))
    return digest


def covered_files(digest: str) -> dict[str, str]:
    """Return the files that a digest of this process covers, each with a digest of its own; empty for another one.

    A record of them tells later which file changed. The files that a module reads stand by themselves.
    """
    reached, others = _reached.get(digest, ([], ()))
    found = {_shown(path): _content_digest(path) for path in others}
    for path in reached:
        info = _module_info(path)
        found[_shown(path)] = info.digest
        found |= {_shown(path.parent / name): _content_digest(path.parent / name) for name in info.resources}
    return found


def _shown(path: Path) -> str:
    return os.path.relpath(path, ROOT.parent)


def modules_of(script: str | Path) -> list[str]:
    """Return the files that the digest of a script covers, relative to the scripts folder."""
    return sorted(str(path.relative_to(ROOT)) for path in _import_closure(Path(script).resolve()))


def _import_closure(start: Path) -> set[Path]:
    found, waiting = {start}, [start]
    while waiting:
        for path in _imports(waiting.pop(), selected_engine()):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return found


class ModuleInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A digest of a module's meaning, the names that it imports, and the files that it reads."""

    digest: str
    imports: list[str]
    resources: list[str]


@functools.cache
def _module_info(path: Path) -> ModuleInfo:
    """Return what is read from a module's text, by its content."""
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    known = _load_cache()
    if key not in known:
        tree = _tree(content, path)
        known[key] = ModuleInfo(
            digest=hashlib.sha256(ast.dump(tree).encode()).hexdigest(),
            imports=list(dict.fromkeys(_imported_names(tree))),
            resources=_resources(tree),
        )
        _save_cache(known)
    return known[key]


@functools.cache
def _load_cache() -> dict[str, ModuleInfo]:
    """Return module infos by the content of a file; parsing all modules would take half a second."""
    try:
        return msgspec.json.decode(CACHE_FILE.read_bytes(), type=dict[str, ModuleInfo])
    except (OSError, msgspec.DecodeError):
        return {}


def _save_cache(known: dict[str, ModuleInfo]) -> None:
    with contextlib.suppress(OSError):  # a read-only checkout is only slower
        write_text(CACHE_FILE, msgspec.json.encode(known, order="sorted").decode())


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
    info = _module_info(path)
    resources = [_content_digest(path.parent / name) for name in info.resources]
    return hashlib.sha256("".join([info.digest, *resources]).encode()).hexdigest()


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
def _imports(path: Path, engine: str) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(file for name in _module_info(path).imports for file in _files(name, engine)))


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Dotted names that may be modules of the library; `from a import b` gives both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _files(name: str, engine: str) -> tuple[Path, ...]:
    """The files that importing a dotted name runs: the packages above it and the module itself.

    Of a function of `snaketune.engines` these are also the modules of engines that calling it imports; of the engines
    that train, those of `engine`.
    """
    parts = name.split(".")
    if parts[0] != LIBRARY.name:
        return ()
    found: list[Path] = []
    if parts[1:-1] == ["engines"] and parts[-1] in ENGINE_PARTS:
        others = {part.parent.name for part in LIBRARY.glob(TRAINERS)} - {engine}
        for part in sorted(LIBRARY.glob(f"engines/*/{ENGINE_PARTS[parts[-1]]}.py")):
            if part.parent.name in others:
                continue
            found += _files(".".join(part.relative_to(ROOT).with_suffix("").parts), engine)
    for depth in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:depth])
        found += [file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()]
    return tuple(found)
