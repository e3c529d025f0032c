"""The library stays readable: the counts of tests/structure.py keep their limits, and retired words do not return."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import structure
from snaketune.display.board import STAGE_OF, STAGES
from snaketune.report import outcome
from snaketune.ui import processes

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


def _rules() -> dict[str, bool]:
    """Every rule, and whether it has a script: it is a step then, and a stage or a set of files otherwise."""
    found = {}
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for part in re.split(r"^rule ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            found[part.split(":")[0]] = "script:" in part
    return found


def test_every_step_is_drawn_in_a_stage_of_the_display() -> None:
    steps = {name for name, has_script in _rules().items() if has_script}
    assert steps == set(STAGE_OF), steps ^ set(STAGE_OF)


def test_every_list_of_stages_has_those_of_the_snakefile() -> None:
    whole = re.search(r"^rule all:.*", (ROOT / "Snakefile").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert whole
    chain = re.findall(r"rules\.(\w+)\.input", whole.group())
    assert chain[0] == "data"
    assert chain[-1] == "report"
    lists = {
        "display/board.py": [*STAGES],
        "ui/processes.py": [*processes.STAGES],
        "report/outcome.py": [*outcome.STAGE_FILES, "report"],
        **{f"report/ui/{name}.js": _first_list(ROOT / f"report/ui/{name}.js") for name in ("start", "run")},
    }
    for place, stages in lists.items():
        assert [stage for stage in stages if stage in chain] == chain, place


def _first_list(path: Path) -> list[str]:
    """The entries of the first array of names in a script of the page."""
    found = re.search(r"^const [A-Z]+ = \[(.*)\];", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, path
    return re.findall(r'"(\w+)"', found.group(1))
