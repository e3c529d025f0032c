"""The library stays readable: the counts of tests/structure.py keep their limits, and retired words do not return."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import structure

ROOT = Path(__file__).resolve().parents[2]

# words of the earlier private dialect, each with the word of docs/glossary.md that stands for it now
RETIRED = {
    "told": "logger, message",
    "said": "text, message",
    "kin": "cluster",
    "mend": "fix",
    "mended": "patched",
    "artefact": "variant",
    "artefacts": "variants, models",
    "foretold": "forecast",
    "going": "pending",
    "asked": "prompt",
    "nowhere": "NullLog",
    "telling": "logging",
    "voice": "LogForwarder",
    "akin": "is_similar",
    "dealt": "assigned",
    "licence": "license",
}


@pytest.mark.parametrize("count", structure.counts(), ids=lambda count: count.name)
def test_structure_counts_stay_within_their_limits(count: structure.Count) -> None:
    assert count.found <= count.limit, "\n".join(count.places)


def _identifiers(path: Path) -> set[str]:
    tree = ast.parse(path.read_bytes())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_retired_words_do_not_return_as_identifiers() -> None:
    sources = [*(structure.ROOT / "scripts").rglob("*.py"), *(structure.ROOT / "rules").rglob("*.py")]
    found = [
        f"{path.relative_to(structure.ROOT)}: {name} (say {RETIRED[word]})"
        for path in sources
        for name in sorted(_identifiers(path))
        for word in _words(name) & RETIRED.keys()
    ]
    assert not found, "\n".join(found)


def test_nothing_that_the_set_up_builds_is_under_version_control() -> None:
    """A link in the place of such a folder would be checked out over it, and delete what was built."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    built = (".venv", "vendor", ".trainers")
    assert [name for name in listed.stdout.splitlines() if name.split("/")[0] in built] == []
