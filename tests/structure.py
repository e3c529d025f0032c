"""Counts what keeps the library readable, with the limit of each: `python tests/structure.py` prints the table.

`make lint` prints it, and tests/unit/test_structure.py fails where a count is over its limit.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grimp

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "scripts" / "snaketune"
PATCHES = ROOT / "rules" / "snakemake_patches"
NO_PATCHES = ("__init__.py", "hooks.py", "rerun_reasons.py")
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 6
# the aliases of report/ count as what they stand for
UNTYPED = re.compile(r"\b(?:(?:dict|Mapping|MutableMapping)\[str, Any\]|JsonObject\b|Values\b)")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Count(NamedTuple):
    """One row of the table: what is counted, the number found, and the places.

    limit: the largest number that the tests accept; lower it whenever a change allows it. target: where it is to end.
    """

    name: str
    found: int
    limit: int
    target: int
    places: list[str]


def counts() -> list[Count]:
    """Every count of the library as it stands, in the order of the table."""
    functions = list(_functions())
    untyped = [f"{where} ({slots})" for where, node in functions if (slots := _untyped_slots(node))]
    slots = sum(_untyped_slots(node) for _, node in functions)
    modules = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")
    long = [where for where, node in functions if _length(node) > MAX_FUNCTION_LINES]
    wide = [where for where, node in functions if _num_parameters(node) > MAX_PARAMETERS]
    patches = sorted(path.name for path in PATCHES.glob("*.py") if path.name not in NO_PATCHES)
    circles = import_circles()
    return [
        Count("dict[str, Any] slots in signatures", slots, 37, 37, untyped),
        Count("modules", len(modules), 250, 250, []),
        Count("import circles", len(circles), 0, 0, circles),
        Count(f"functions over {MAX_FUNCTION_LINES} lines", len(long), 0, 0, long),
        Count(f"functions with over {MAX_PARAMETERS} parameters", len(wide), 0, 0, wide),
        Count("Snakemake patches", len(patches), 5, 6, patches),
    ]


def _functions() -> Iterator[tuple[str, Function]]:
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(LIBRARY)}:{node.lineno} {node.name}", node


def _arguments(node: Function) -> list[ast.arg]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return every + [argument for argument in (node.args.vararg, node.args.kwarg) if argument]


def _untyped_slots(node: Function) -> int:
    """How many times a signature says `dict[str, Any]` or the like."""
    annotations = [argument.annotation for argument in _arguments(node)] + [node.returns]
    return sum(len(UNTYPED.findall(ast.unparse(annotation))) for annotation in annotations if annotation)


def _num_parameters(node: Function) -> int:
    return len([argument for argument in _arguments(node) if argument.arg not in ("self", "cls")])


def _length(node: Function) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def import_circles() -> list[str]:
    """Groups of modules, and groups of rooms, that import each other, lazy imports included."""
    graph = grimp.build_graph("snaketune", cache_dir=None)
    edges = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    rooms: dict[str, set[str]] = {}
    for module, imported in edges.items():
        rooms.setdefault(_room(module), set()).update(map(_room, imported))
    found = [*_circles(edges), *_circles({room: others - {room} for room, others in rooms.items()})]
    return [" <-> ".join(sorted(circle)) for circle in found]


def _room(module: str) -> str:
    parts = module.split(".")
    if parts[1:2] == ["engines"]:
        return ".".join(parts[:3])
    return ".".join(parts[:2])


def _circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one node."""
    reachable = {node: _reachable(edges, node) for node in edges}
    circles = [
        frozenset(other for other in reach if node in reachable.get(other, set())) for node, reach in reachable.items()
    ]
    return [set(circle) for circle in sorted(set(circles), key=sorted) if len(circle) > 1]


def _reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in edges.get(waiting.pop(), set()) - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def main() -> None:
    """Print the table, and with -v the places where a count is over its target."""
    print(f"{'':<42} found  limit  target")
    for count in counts():
        print(f"{count.name:<42} {count.found:>5}  {count.limit:>5}  {count.target:>6}")
        if count.found > count.target and "-v" in sys.argv:
            print("".join(f"    {place}\n" for place in count.places), end="")


if __name__ == "__main__":
    main()
